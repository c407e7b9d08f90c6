// Pictures to step through: a slider, and so the arrow keys, shows one of them at a time.
for (const stepper of document.querySelectorAll("[data-stepper]")) {
  const slider = stepper.querySelector("input"), name = stepper.querySelector("output");
  const pictures = [...stepper.querySelectorAll("img")];
  slider.addEventListener("input", () => {
    pictures.forEach((picture, number) => { picture.hidden = number !== Number(slider.value); });
    name.value = pictures[slider.value].dataset.name;
  });
}
