"""The story of a training: cases, fold, patches, steps, averaged weights, their check, one weights file."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from surface_kernel import weights
from surface_kernel.device import Device, choose, share_threads
from surface_kernel.network import build, restore
from surface_kernel.weights import Metadata
from surface_train import cases, loss, state, validate
from surface_train.average import Average, recompute_batchnorm
from surface_train.cases import Case
from surface_train.folds import Split, split
from surface_train.patches import Batch, Sampler, Store
from surface_train.record import Record, commit
from surface_train.schedule import learning_rate
from surface_train.settings import Settings
from surface_train.state import Progress
from surface_train.validate import Checked, Predicted

log = logging.getLogger("surface_train")


@dataclass(frozen=True)
class Request:
    """What a person asks of one training."""

    settings_file: Path
    settings: Settings
    data: Path
    fold: str
    out: Path
    init: Path | None = None
    resume: bool = False
    device: str | None = None
    budget_s: float = float("inf")


def fit(request: Request) -> Path:
    """Train, average, check; give the weights to ship. Raises what the parts raise, before hours are spent."""
    settings, started_s = request.settings, time.monotonic()
    sides = _sides(request)
    record = Record(request.out)
    device = choose(request.device)
    share_threads(device)
    log.info("training on %s", device)
    run = _Run(settings, sides, record, device, request.init)
    if record.begin(request.settings_file, sides, request.resume):
        run.resume()
    epoch_s = 0.0
    while run.progress.epoch < settings.epochs:
        left_s = request.budget_s - (time.monotonic() - started_s)
        if 1.2 * (epoch_s + run.finish_s) > left_s:
            log.info("stopping after epoch %d: the budget ends; --resume goes on from here", run.progress.epoch)
            break
        epoch_started_s = time.monotonic()
        run.epoch()
        epoch_s = max(epoch_s, time.monotonic() - epoch_started_s)
    return run.finish()


def _sides(request: Request) -> Split:
    whole, missing = cases.read(request.data)
    if missing:
        log.info("%d rows of train.csv have no image or no label and are left out", missing)
    settings = request.settings
    sides = split(whole, request.fold, settings.folds, settings.fold_count)
    for name, side in (("training", sides.training), ("validation", sides.validation)):
        scrolls = ", ".join(f"scroll {scroll}: {count}" for scroll, count in cases.sizes_by_scroll(side).items())
        log.info("%s: %d cases%s", name, len(side), f" ({scrolls})" if scrolls else "")
    return sides


class _Run:
    """A training in progress: network, optimiser, averages, and how far they have come."""

    def __init__(self, settings: Settings, sides: Split, record: Record, device: Device, init: Path | None) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.sides, self.record, self.device = settings, sides, record, device
        self.network = device.place(self._initial(init))
        chosen = settings.optimiser
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay
        )
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.dtype == "float16")
        store = Store(sides.training, settings.intensity, settings.patches.cache_gb)
        self.sampler = Sampler(store, settings.patches, settings.augment, settings.seed)
        self.checked = _spread(sides.validation, settings.validation.cases)
        self.average = Average()
        self.progress = Progress(settings.digest, sides.digest)
        self.finish_s = 0.0

    def _initial(self, init: Path | None) -> nn.Module:
        if init is None:
            return build(self.settings.network)
        metadata, tensors = weights.load(init)
        if metadata.architecture != self.settings.network:
            raise ValueError(
                f"{init}: found {metadata.architecture}, wanted {self.settings.network} as in the settings"
            )
        return restore(metadata.architecture, tensors).requires_grad_(True)

    def resume(self) -> None:
        """Go back to the last saved epoch. Raises StateError when it belongs to other settings or another split."""
        found, average = state.load(self.record.state, self.progress, self.network, self.optimiser)
        self.progress, self.average = found, average
        if found.scaler:  # empty after a run on a device that needs none
            self.scaler.load_state_dict(found.scaler)
        self.record.forget_after(found.epoch)
        log.info("resuming after epoch %d", found.epoch)

    def epoch(self) -> None:
        """Train one epoch, average and validate when it is time, and save."""
        settings, epoch = self.settings, self.progress.epoch + 1
        started_s = time.monotonic()
        mean_loss, parts, spread = self._train(epoch)
        self.progress.epoch = epoch
        log.info("Epoch %d Train - Loss: %.4f (%s)", epoch, mean_loss, _listed(parts))
        if epoch >= settings.average.start_epoch:
            self.average.add(self.network.state_dict())
        row: dict[str, object] = {
            "epoch": epoch,
            "seconds": round(time.monotonic() - started_s, 1),
            "learning_rate": learning_rate(epoch * settings.steps_per_epoch - 1, settings),
            "loss": mean_loss,
            **parts,
            "variance_of_p": spread,
        }
        due = epoch % settings.validation.every_epochs == 0 or epoch == settings.epochs
        result = self._validate(self.network, f"Epoch {epoch}") if due and self.checked else None
        names = ("threshold", "dice", "surface_dice", "voi_score", "foreground", "truth", "variance")
        row |= {f"val_{name}": getattr(result, name) if result else "" for name in names}
        self.record.log(row)
        if result and result.surface_dice > self.progress.best_surface_dice:
            self.progress.best_surface_dice, self.progress.best_epoch = result.surface_dice, epoch
            self._write(self.record.best, self.network, result)
        self.progress.scaler = self.scaler.state_dict()
        state.save(self.record.state, self.progress, self.network, self.optimiser, self.average)

    def finish(self) -> Path:
        """Check the averaged weights against the single best and ship the better; give the file."""
        if not self.average.count:
            log.info("no weights were averaged: averaging starts with epoch %d", self.settings.average.start_epoch)
            if not self.progress.best_epoch:  # a file of that name may be an earlier stop's
                self._write(self.record.best, self.network, None)
            self.record.ship(self.record.best)
            return self.record.weights
        averaged = self.device.place(restore(self.settings.network, self.average.mean))
        first = self.settings.epochs * self.settings.steps_per_epoch  # batches that no step has seen
        unseen = self.sampler.batches(first, first + self.settings.average.batchnorm_steps)
        recompute_batchnorm(averaged, (torch.from_numpy(batch.images)[:, None] for batch in unseen), self.device)
        result = self._validate(averaged, f"Average of {self.average.count}") if self.checked else None
        self._write(self.record.averaged, averaged, result)
        better = result is None or result.surface_dice >= self.progress.best_surface_dice
        chosen = self.record.averaged if better or not self.record.best.exists() else self.record.best
        if result is not None:
            log.info(
                "shipping %s: surface Dice %.4f averaged, %.4f best single (epoch %d)",
                *(chosen.name, result.surface_dice, self.progress.best_surface_dice, self.progress.best_epoch),
            )
        self.record.ship(chosen)
        return self.record.weights

    def _train(self, epoch: int) -> tuple[float, dict[str, float], float]:
        steps = self.settings.steps_per_epoch
        first = (epoch - 1) * steps
        torch.manual_seed(self.settings.seed + epoch)  # for networks that draw, so that a resumed run draws the same
        self.network.train()
        losses: list[Tensor] = []
        parts: list[dict[str, Tensor]] = []
        spreads: list[Tensor] = []
        batches: Iterator[Batch] = self.sampler.batches(first, first + steps)
        with tqdm(batches, total=steps, desc=f"epoch {epoch}", unit="step", leave=False, disable=None) as bar:
            for step, batch in enumerate(bar, start=first):
                for group in self.optimiser.param_groups:
                    group["lr"] = learning_rate(step, self.settings)
                value, terms, spread = self._step(batch)
                losses.append(value)
                parts.append(terms)
                spreads.append(spread)
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise RuntimeError(f"epoch {epoch}: found a loss of {mean}, wanted a finite one: lower the learning rate")
        terms_mean = {name: torch.stack([part[name] for part in parts]).mean().item() for name in parts[0]}
        return mean, terms_mean, torch.stack(spreads).mean().item()

    def _step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        images = torch.from_numpy(batch.images)[:, None].to(self.device.name, non_blocking=True)
        labels = torch.from_numpy(batch.labels).to(self.device.name, non_blocking=True)
        with self.device.autocast():
            logits = self.network(images)
        value, terms = loss.total(logits, labels, self.settings.loss)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.optimiser.clip_norm)
        # A scaler skips a step whose gradient is not finite; without one such a step would spoil the weights for good.
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            found = f"a loss of {value.item()} with a gradient of norm {norm.item()}"
            raise RuntimeError(f"found {found}, wanted finite ones: lower the learning rate")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        with torch.no_grad():
            spread = loss.probability_variance(logits[:, 0].float(), loss.Truth(labels)).mean()
        return value.detach(), terms, spread

    def _validate(self, network: nn.Module, name: str) -> Checked:
        started_s = time.monotonic()
        predicted: list[Predicted] = validate.predict(network, self.checked, self.settings, self.device)
        result = validate.check(predicted, validate.best_threshold(predicted))
        log.info(
            "%s Val - surface Dice: %.4f, Dice: %.4f, VOI score: %.4f, threshold %.2f, foreground %.2f %% of %.2f %%",
            *(name, result.surface_dice, result.dice, result.voi_score, result.threshold),
            *(100 * result.foreground, 100 * result.truth),
        )
        self.record.picture(predicted[0], result.threshold, name.lower().replace(" ", "_"))
        self.finish_s = max(self.finish_s, time.monotonic() - started_s)
        return result

    def _write(self, path: Path, network: nn.Module, result: Checked | None) -> None:
        settings = self.settings
        provenance = {
            "settings_sha256": settings.digest,
            "split_sha256": self.sides.digest,
            "commit": commit(),
            "fold": self.sides.fold,
            "epoch": self.progress.epoch,
            "epochs": settings.epochs,
            "n_averaged": self.average.count if path == self.record.averaged else 0,
            "validation": "ungated" if result is None else _scores(result),
        }
        described = Metadata(settings.network, settings.intensity, settings.patches.shape_zyx, settings.overlap)
        described = replace(described, provenance=provenance, threshold=result.threshold if result else 0.5)
        weights.save(path, network.state_dict(), described)


def _scores(result: Checked) -> dict[str, float]:
    return {name: round(getattr(result, name), 6) for name in ("dice", "surface_dice", "voi_score", "foreground")}


def _listed(parts: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:.4f}" for name, value in parts.items())


def _spread(cases: tuple[Case, ...], count: int) -> list[Case]:
    """Take up to `count` cases, evenly spread over the scrolls, the same ones every time."""
    ordered = sorted(cases, key=lambda case: (case.scroll, case.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[index * len(ordered) // count] for index in range(count)]
