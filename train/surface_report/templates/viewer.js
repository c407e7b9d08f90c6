// The slice viewer: one case at a time, decoded when it is opened, cut in three planes from the volumes in memory.
const slicesViewer = document.getElementById("slices-viewer");
if (slicesViewer) {
  const byId = (name) => document.getElementById(`slices-${name}`);
  const AXES = ["z", "y", "x"];
  // The numbers of surface_report/slices/kinds.py.
  const KIND = ["background", "unlabelled", "both", "missed", "added", "merged", "split", "hole", "plug", "predicted", "unlabelled and predicted"];
  const MEANING = ["background", "unlabelled", "true and predicted", "missed", "added", "added at a merge", "missed at a split",
    "missed: would fill a hole", "added: fills a true hole", "predicted", "unlabelled, predicted"];
  const TRUE = [2, 3, 6, 7], PREDICTED = [2, 4, 5, 8, 9, 10];
  const LAYER_OF = { 3: ["missed"], 4: ["added"], 5: ["merged", "added"], 6: ["split", "missed"], 7: ["holes", "missed"], 8: ["holes", "added"] };
  // Okabe and Ito's palette, distinguishable with every kind of colour vision; style.css has the same.
  const COLOUR = { truth: [0, 158, 115], predicted: [230, 159, 0], agreed: [245, 245, 245], missed: [86, 180, 233], added: [213, 94, 0],
    merged: [240, 228, 66], split: [204, 121, 167], holes: [0, 114, 178], unlabelled: [110, 110, 110] };
  const BARE = 28; // the grey of a voxel without CT
  const layers = Object.fromEntries([...slicesViewer.querySelectorAll("[data-layer]")].map((box) => [box.dataset.layer, box]));
  const sliders = AXES.map((axis) => byId(`at-${axis}`));
  const figures = [...slicesViewer.querySelectorAll(".plane")];
  const KEPT = 4; // decoded cases: 4 to 20 MB each
  const kept = new Map();
  let open = null; // the case that is shown
  let place = -1; // of its places, the one that was jumped to
  let opening = 0;

  function bytesOf(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at);
    return bytes;
  }

  async function unpack(text, planes) {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    const kinds = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = kinds.length / planes;
    for (let at = size; at < kinds.length; at++) kinds[at] ^= kinds[at - size]; // each plane says what changes
    return kinds;
  }

  async function pixels(url) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, image.width, image.height).data;
    const grey = new Uint8Array(data.length / 4);
    for (let at = 0; at < grey.length; at++) grey[at] = data[4 * at];
    return { grey, width: image.width };
  }

  async function volumeOf(packed) {
    if (!packed.ct) return null;
    const [depth, height, width] = packed.cells;
    const { grey, width: across } = await pixels(packed.ct);
    const volume = new Uint8Array(depth * height * width);
    for (let z = 0; z < depth; z++) {
      const top = Math.floor(z / packed.columns) * height, left = (z % packed.columns) * width;
      for (let y = 0; y < height; y++) {
        const start = (top + y) * across + left;
        volume.set(grey.subarray(start, start + width), (z * height + y) * width);
      }
    }
    return volume;
  }

  async function exactPlanes(packed) {
    const made = packed.exact.map(async (plane) => {
      const [height, width] = packed.shape.filter((_, other) => other !== plane.axis);
      const kinds = await Promise.all(plane.kinds.map((one) => unpack(one, height)));
      return [`${plane.axis}:${plane.at}`, { ct: plane.ct && (await pixels(plane.ct)).grey, kinds, height, width }];
    });
    return new Map(await Promise.all(made));
  }

  async function decode(number) {
    const packed = JSON.parse(byId(`data-${number}`).textContent);
    const { id, shape, cells, places, hasTruth, scores } = packed;
    const [ct, kinds] = await Promise.all([volumeOf(packed), Promise.all(packed.kinds.map((one) => unpack(one, cells[0])))]);
    const made = { id, shape, cells, places, hasTruth, scores, ct, kinds, exact: new Map() };
    made.complete = exactPlanes(packed).then((planes) => { made.exact = planes; }); // shown as soon as they are there
    return made;
  }

  // The cases that were decoded last; a neighbour of the open one is decoded before anybody asks for it.
  function decoded(number) {
    const made = kept.get(number) ?? decode(number);
    kept.delete(number);
    kept.set(number, made);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return made;
  }

  // A plane as { height, width, and for each row and column where its voxel is }.
  function cut(axis, of) {
    const at = sliders.map((slider) => Number(slider.value));
    const exact = open.exact.get(`${axis}:${at[axis]}`);
    if (exact) return { exact: true, ct: exact.ct, kinds: exact.kinds[of], height: exact.height, width: exact.width, start: 0, down: exact.width, right: 1 };
    const steps = [open.cells[1] * open.cells[2], open.cells[2], 1];
    const [down, right] = [0, 1, 2].filter((other) => other !== axis);
    const cell = Math.floor((at[axis] * open.cells[axis]) / open.shape[axis]);
    return { exact: open.shape[axis] === open.cells[axis] && open.shape[down] === open.cells[down] && open.shape[right] === open.cells[right],
      ct: open.ct, kinds: open.kinds[of], height: open.cells[down], width: open.cells[right], start: cell * steps[axis], down: steps[down], right: steps[right] };
  }

  function colourOf(kind) {
    const on = (name) => layers[name].checked;
    for (const name of LAYER_OF[kind] ?? []) if (on(name)) return COLOUR[name];
    const asTrue = TRUE.includes(kind) && on("truth"), asPredicted = PREDICTED.includes(kind) && on("predicted");
    if (asTrue && asPredicted) return COLOUR.agreed;
    if (asTrue) return COLOUR.truth;
    return asPredicted ? COLOUR.predicted : null;
  }

  function paint(axis) {
    const colours = KIND.map((_, kind) => colourOf(kind));
    const alpha = Number(byId("opacity").value) / 100;
    const veiled = layers.unlabelled.checked;
    figures[axis].querySelectorAll(".screen").forEach((screen, of) => {
      screen.hidden = of >= open.kinds.length;
      if (screen.hidden) return;
      const plane = cut(axis, of);
      const canvas = screen.querySelector("canvas");
      if (canvas.width !== plane.width || canvas.height !== plane.height) {
        canvas.width = plane.width;
        canvas.height = plane.height;
      }
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const image = context.createImageData(plane.width, plane.height);
      const out = image.data;
      const ct = layers.ct.checked ? plane.ct : null;
      for (let row = 0, to = 0; row < plane.height; row++) {
        let from = plane.start + row * plane.down;
        for (let column = 0; column < plane.width; column++, from += plane.right, to += 4) {
          const grey = ct ? ct[from] : BARE;
          const kind = plane.kinds[from];
          let colour = colours[kind], weight = alpha;
          // Stripes, so that the unlabelled margin is told from what is labelled without a colour of its own.
          if (!colour && veiled && (kind === 1 || kind === 10) && (row + column) % 6 < 2) [colour, weight] = [COLOUR.unlabelled, 0.45];
          out[to] = colour ? grey + (colour[0] - grey) * weight : grey;
          out[to + 1] = colour ? grey + (colour[1] - grey) * weight : grey;
          out[to + 2] = colour ? grey + (colour[2] - grey) * weight : grey;
          out[to + 3] = 255;
        }
      }
      context.putImageData(image, 0, 0);
      figures[axis].querySelector(".exact").hidden = !plane.exact;
      canvas.setAttribute("aria-label", `Slice ${AXES[axis]} = ${sliders[axis].value} of 0 to ${sliders[axis].max}; arrow keys move it`);
    });
    placeCross(axis);
  }

  function placeCross(axis) {
    const [down, right] = [0, 1, 2].filter((other) => other !== axis);
    const middle = (other) => `${((Number(sliders[other].value) + 0.5) / open.shape[other]) * 100}%`;
    for (const cross of figures[axis].querySelectorAll(".hair")) {
      cross.hidden = !layers.cross.checked;
      cross.style.setProperty("--down", middle(down));
      cross.style.setProperty("--right", middle(right));
    }
  }

  // What the voxel at the cross-hairs is: of an exact plane where there is one.
  function readout() {
    const at = sliders.map((slider) => Number(slider.value));
    const planes = AXES.map((_, axis) => open.kinds.map((_, of) => cut(axis, of)));
    const axis = Math.max(planes.findIndex((plane) => plane[0].exact), 0);
    const [down, right] = [0, 1, 2].filter((other) => other !== axis);
    const flats = planes[axis].map((plane) => plane.start
      + Math.floor((at[down] * plane.height) / open.shape[down]) * plane.down
      + Math.floor((at[right] * plane.width) / open.shape[right]) * plane.right);
    const kinds = planes[axis].map((plane, of) => MEANING[plane.kinds[flats[of]]]);
    const grey = open.ct ? `, CT ${planes[axis][0].ct[flats[0]]}` : "";
    byId("readout").textContent = `(${at.join(", ")})${grey}: ${[...new Set(kinds)].join(" | ")}`;
  }

  function paintAll() {
    if (!open) return;
    AXES.forEach((axis, index) => {
      byId(`out-${axis}`).value = sliders[index].value;
      paint(index);
    });
    readout();
  }

  function moveTo(at) {
    sliders.forEach((slider, axis) => { slider.value = at[axis]; });
    paintAll();
  }

  function lossBar({ score, lost }, name) {
    const bar = document.createElement("div");
    bar.className = "lossbar";
    bar.setAttribute("aria-hidden", "true");
    const words = [`${name}score ${score.toFixed(4)}`];
    for (const [cause, points] of [["score", score], ...Object.entries(lost)]) {
      const piece = document.createElement("span");
      piece.className = `cause ${cause}`;
      piece.style.width = `${100 * points}%`;
      bar.append(piece);
      if (cause !== "score" && points > 0) words.push(`${cause} −${points.toFixed(4)}`);
    }
    const text = document.createElement("p");
    text.textContent = words.join(", ");
    return [bar, text];
  }

  function showLost() {
    byId("lost").hidden = open.scores.length === 0;
    byId("lost").replaceChildren(...open.scores.flatMap((row, of) => lossBar(row, open.scores.length > 1 ? `${"AB"[of]}: ` : "")));
  }

  function listPlaces() {
    byId("jump").hidden = open.places.length === 0;
    byId("places").replaceChildren(...open.places.map((one, number) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      const kind = document.createElement("b");
      kind.textContent = one.kind;
      const at = document.createElement("span");
      at.textContent = `(${one.at.join(", ")})`;
      const compared = open.kinds.length > 1 ? ` [${"AB"[one.of]}]` : "";
      button.append(kind, `${compared} ${one.text} `, at);
      button.addEventListener("click", () => jump(number));
      item.append(button);
      return item;
    }));
  }

  function jump(number) {
    if (!open || !open.places.length) return;
    place = (number + open.places.length) % open.places.length;
    byId("places").querySelectorAll("button").forEach((button, index) => button.setAttribute("aria-pressed", index === place));
    moveTo(open.places[place].at);
  }

  async function show(number) {
    const chooser = byId("case");
    const turn = ++opening;
    chooser.value = number;
    slicesViewer.setAttribute("aria-busy", "true");
    const loaded = await decoded(number);
    if (turn !== opening) return; // another case was asked for meanwhile
    open = loaded;
    place = -1;
    sliders.forEach((slider, axis) => {
      slider.max = open.shape[axis] - 1;
      figures[axis].style.setProperty("--ratio", axis === 0 ? open.shape[2] / open.shape[1] : axis === 1 ? open.shape[2] / open.shape[0] : open.shape[1] / open.shape[0]);
    });
    for (const name of ["truth", "missed", "added", "merged", "split", "holes", "unlabelled"]) layers[name].closest("label").hidden = !open.hasTruth;
    if (!open.hasTruth) layers.predicted.checked = true;
    showLost();
    listPlaces();
    if (open.places.length) jump(0);
    else moveTo(open.shape.map((length) => Math.floor(length / 2)));
    slicesViewer.dataset.open = number;
    await loaded.complete;
    if (turn !== opening) return;
    paintAll();
    slicesViewer.setAttribute("aria-busy", "false");
    if (number + 1 < chooser.options.length) decoded(number + 1);
  }

  const step = (by) => {
    const count = byId("case").options.length;
    show((Number(byId("case").value) + by + count) % count);
  };
  const moveBy = (axis, by) => {
    sliders[axis].value = Number(sliders[axis].value) + by;
    paintAll();
  };

  byId("case").addEventListener("change", (event) => show(Number(event.target.value)));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("opacity").addEventListener("input", paintAll);
  const layout = byId("layout");
  const arrange = () => { byId("planes").dataset.layout = layout.value; };
  layout.value = slicesViewer.dataset.compared === "1" ? "all" : "0";
  layout.addEventListener("change", arrange);
  sliders.forEach((slider) => slider.addEventListener("input", paintAll));
  Object.values(layers).forEach((box) => box.addEventListener("change", paintAll));
  figures.forEach((figure, axis) => {
    const [down, right] = [0, 1, 2].filter((other) => other !== axis);
    figure.querySelectorAll("canvas").forEach((canvas) => {
      canvas.addEventListener("click", (event) => {
        const box = canvas.getBoundingClientRect();
        const at = sliders.map((slider) => Number(slider.value));
        at[down] = Math.floor(((event.clientY - box.top) / box.height) * open.shape[down]);
        at[right] = Math.floor(((event.clientX - box.left) / box.width) * open.shape[right]);
        moveTo(at);
      });
      canvas.addEventListener("keydown", (event) => {
        const last = Number(sliders[axis].max);
        const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -last, End: last }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        moveBy(axis, by);
      });
    });
  });
  slicesViewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const boxes = Object.values(layers);
    if (/^[0-9]$/.test(event.key)) boxes[(Number(event.key) + 9) % 10]?.click();
    else if (event.key === "n") jump(place + 1);
    else if (event.key === "p") jump(place - 1);
    else if (event.key === ".") step(1);
    else if (event.key === ",") step(-1);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-case]");
    if (!link) return;
    const number = [...document.querySelectorAll("#slices-case option")].findIndex((option) => option.dataset.id === link.dataset.case);
    if (number >= 0) show(number);
  });
  arrange();
  slicesViewer.hidden = false;
  show(0);
}
