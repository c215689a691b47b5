"""Running an analysis: Hydra composes and launches cells, records resume, one figure at the end.

``conf/<analysis>.yaml`` declares a grid of cells for each scale; every axis can be overridden on
the command line (commas sweep).  Cells that already have a record are not computed again.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from analyses._composing import _compose, _compose_all, _expand, _is_sweep
from landscape import data, figures, solve, train
from landscape.architectures import Architecture, get
from landscape.errors import BadInput
from landscape.problem import Problem
from landscape.solvers import Solution
from landscape.store import Store, key, provenance
from landscape.training import Runs

CONF = Path(__file__).resolve().parent.parent / "conf"
NOT_NUMBERS = (
    "analysis", "module", "results", "figure", "grid", "launcher", "threads", "scale", "force",
)  # fmt: skip
"""Settings that do not change numbers and are not part of a record's key."""
OBJECTIVE = "Objective: ½ Σ (f − y)² + β/2 Σ(‖w‖² + a²) (or the named loss); sums, not means."


def main(file: str, conf: Path = CONF, arguments: Sequence[str] | None = None) -> None:
    """Run the analysis in this file from the command line, and exit with its status."""
    sys.exit(run(Path(file).stem, list(sys.argv[1:] if arguments is None else arguments), conf))


def run(name: str, overrides: list[str], conf: Path = CONF) -> int:
    """Run one analysis; return 0, 1 if some cells failed, or 2 if the input was refused."""
    overrides = [o for o in overrides if o not in ("-m", "--multirun")]  # it always is one
    if any(o.startswith("-") for o in overrides):  # --help, --cfg job, --info: Hydra answers
        _hydra(name, overrides, conf)
        return 0
    try:
        base, overrides = composed(name, overrides, conf)
        grids = [_grid(grid, overrides) for grid in base.grid[base.scale.name]]
        configs = _applying(name, _composed_cells(name, overrides, grids, conf))
        by_key = {_key(cfg): cfg for cfg in configs}
        keys = list(by_key)
        store = Store(Path(base.results) / name)
        for one in keys:
            if _forced(base.get("force", False), store, one):
                store.discard(one)
        missing = [cfg for one, cfg in by_key.items() if not store.has(one)]
        if missing:
            alone = _alone(name, overrides, conf)
            if base.timed and not alone:
                raise BadInput("launcher: this analysis times its cells; use launcher=local.")
            store.sweep_up()
            with _progress(name, store, keys):
                for cfg in missing if alone else ():  # composed already: Hydra would do it again
                    job(cfg)
                for grid in () if alone else grids:
                    _hydra(name, ["--multirun", *overrides, *grid], conf)
        return _finish(name, store, keys, base)
    except SystemExit:  # Hydra has said why: a worker was killed, a scheduler refused
        print(f"{name}: the launcher stopped; run it again to resume.", file=sys.stderr)
        return 1
    except BadInput as refusal:
        print(f"{name}: {refusal}", file=sys.stderr)
        return 2


def composed(name: str, overrides: list[str], conf: Path) -> tuple[DictConfig, list[str]]:
    """Return what all cells share, and the overrides with the data of the architecture.

    Raises:
        BadInput: for a sweep over scales, or a scale without a grid.
    """
    base = _compose(name, [o for o in overrides if not _is_sweep(o)], conf)
    if any(_is_sweep(o) and o.startswith("scale=") for o in overrides):
        raise BadInput("scale: one scale a run; a sweep over scales is not possible.")
    if base.scale.name not in base.grid:
        raise BadInput(
            f"scale {base.scale.name!r} has no grid in conf/{name}.yaml: add one under grid, "
            f"or choose of {', '.join(s for s in base.grid if s != 'settings')}."
        )
    return base, _with_own_data(base, overrides)


def cells(name: str, overrides: list[str], conf: Path = CONF) -> list[DictConfig]:
    """Return the settings of all cells of an analysis, each once."""
    base, overrides = composed(name, overrides, conf)
    grids = [_grid(grid, overrides) for grid in base.grid[base.scale.name]]
    return _composed_cells(name, overrides, grids, conf)


def _composed_cells(
    name: str, overrides: list[str], grids: list[list[str]], conf: Path
) -> list[DictConfig]:
    """Return the settings of all cells of grids, each once."""
    found = {tuple(cell): None for grid in grids for cell in _expand(overrides + grid)}
    return _compose_all(name, found, conf)


def _applying(name: str, configs: list[DictConfig]) -> list[DictConfig]:
    """Return the cells that apply to their architectures; the others are named with the reason.

    Raises:
        BadInput: if none does.
    """
    reasons = [_lacking(cfg) for cfg in configs]
    kept = [cfg for cfg, reason in zip(configs, reasons, strict=True) if not reason]
    for reason in dict.fromkeys(filter(None, reasons)):
        if not kept:
            raise BadInput(reason)
        print(f"{name}: {reasons.count(reason)} cells left out: {reason}", file=sys.stderr)
    return kept


def _lacking(cfg: DictConfig) -> str:
    """Return why a cell does not apply to its architecture, or nothing."""
    module = importlib.import_module(cfg.module)
    return module.lacking(cfg) if hasattr(module, "lacking") else ""


def architecture(cfg: Any) -> Architecture:
    """Return the architecture that a cell's settings name."""
    return get(cfg.architecture.name, **cfg.architecture.options)


def optimum(problem: Problem, runs: Any, **options: Any) -> Solution:
    """Solve over everything the architecture can do.

    Where the program is over features, those of trained runs are taken.  Where bounds are relaxed
    a gap stays open, which the certificate names; plain two-layer ReLU networks must close theirs.
    """
    own = problem.architecture
    return solve(problem, start=runs if own.layered else None, throw=own.plain_neurons, **options)


def solved(problem: Problem, cfg: Any) -> tuple[Solution, float]:
    """Return the solution that a cell's settings ask for, and its seconds."""
    options = {"tolerance": cfg.solver.tolerance, "limit": cfg.solver.cones, "rounds": cfg.rounds}
    began = time.perf_counter()
    solution = solve(problem, throw=False, **options)
    return solution, time.perf_counter() - began


def certified(solution: Solution, units: str = "active") -> dict[str, Any]:
    """Return the columns that say what an optimum is worth; ``units`` names its neurons."""
    certificate = solution.certificate
    return {
        "optimum": solution.objective,
        "bound": certificate.bound,
        "scope": certificate.scope,
        "gap": 1 - certificate.bound / solution.objective,
        units: solution.active,
    }


def tuned(problem: Problem, cfg: Any) -> tuple[float, Runs]:
    """Return the learning rate whose networks end lowest in the median, and its runs."""
    found = {
        rate: train(
            problem, cfg.width, range(cfg.seeds), "adam", cfg.steps, learning_rate=rate, throw=False
        )
        for rate in cfg.learning_rates
    }
    ends = {r: float(np.median(np.nan_to_num(f.objectives, nan=np.inf))) for r, f in found.items()}
    best = min(ends, key=lambda rate: ends[rate])
    return best, found[best]


def featured(cfg: Any, what: str) -> str:
    """Return why something does not apply where the program is over given features."""
    own = architecture(cfg)
    return f"{what}; the architecture is {own.label}." if own.layered else ""


def plain_only(cfg: Any, what: str) -> str:
    """Return why something does not apply to other than plain two-layer ReLU networks."""
    own = architecture(cfg)
    return "" if own.plain_neurons else f"{what}; the architecture is {own.label}."


def timed(name: str, overrides: list[str], conf: Path = CONF) -> bool:
    """Return whether an analysis times its cells, so that nothing may run beside it."""
    single = [o for o in overrides if not _is_sweep(o)]
    return bool(_compose(name, single, conf).timed)


def problem(cfg: Any) -> tuple[data.Dataset, Problem]:
    """Return the data set and the problem that a cell's settings name."""
    draw = {"seed": cfg.get("draw", 0), **cfg.data.options}
    sample = data.load(cfg.data.name, **draw)
    beta = next((b for b in (cfg.beta, cfg.data.beta, sample.beta) if b is not None), None)
    if beta is None:
        raise BadInput(f"beta is not set: the data {sample.name!r} have none of their own.")
    y = targets(sample)
    return sample, Problem(sample.X, y, beta, loss=cfg.loss, architecture=architecture(cfg))


def targets(sample: data.Dataset) -> np.ndarray:
    """Return targets (n,), or (n, c): one-hot labels of classes."""
    if sample.task != "multiclass":
        return sample.y
    return np.eye(int(sample.y.max()) + 1)[sample.y.astype(int)]


def described(sample: data.Dataset, problem: Problem) -> dict[str, Any]:
    """Return the columns that say what a cell is about: data, n, d, beta."""
    n, d = problem.X.shape
    name = f"{n}-gon" if sample.name == "kgon" else sample.name
    return {"data": name, "n": n, "d": d, "beta": problem.beta}


def held_out_error(sample: data.Dataset, network: Any) -> float:
    """Return test error: misclassified share for labels, else mean squared error."""
    if sample.X_test is None or not len(sample.X_test):
        return float("nan")
    outputs = network(sample.X_test).detach().numpy()
    if sample.task == "binary":
        return float(np.mean(np.sign(outputs) != sample.y_test))
    if sample.task == "multiclass":
        return float(np.mean(outputs.argmax(axis=1) != sample.y_test))
    return float(np.mean((outputs - sample.y_test) ** 2))


def _grid(grid: Any, overrides: list[str]) -> list[str]:
    """Return the axes of a grid as sweep overrides, except those that the user has set.

    Who sets ``data`` has not asked for the options of the grid's own data.
    """
    chosen = {o.lstrip("+").split("=")[0] for o in overrides}
    parts = {axis: axis.lstrip("+").split(".") for axis in grid}
    return [
        f"{axis}={','.join(map(str, values))}"
        for axis, values in grid.items()
        if not any(".".join(parts[axis][: k + 1]) in chosen for k in range(len(parts[axis])))
    ]


def _with_own_data(base: DictConfig, overrides: list[str]) -> list[str]:
    """Return overrides with the data that suit an architecture, if none are set; few at smoke."""
    own = base.get("architecture", {})
    data = own.get("small", own.get("data")) if base.scale.name == "smoke" else own.get("data")
    chosen = {o.lstrip("+").split("=")[0] for o in overrides}
    return overrides if data is None or "data" in chosen else [*overrides, f"data={data}"]


def _forced(force: Any, store: Store, one: str) -> bool:
    """Return whether a record is to be computed again, refusing an unknown wish."""
    if force not in (True, False, "failed"):
        raise BadInput(f"force is {force!r}: choose true, false or failed.")
    return force is True or (
        force == "failed" and store.has(one) and store.manifest(one)["kind"] == "failed"
    )


def _alone(name: str, overrides: list[str], conf: Path) -> bool:
    """Return whether the launcher runs one cell at a time, however it was chosen."""
    single = [o for o in overrides if not _is_sweep(o)]
    hydra_cfg = _compose(name, single, conf, return_hydra_config=True).hydra
    return hydra_cfg.launcher._target_.endswith("BasicLauncher")


@contextmanager
def _progress(name: str, store: Store, keys: list[str]) -> Iterator[None]:
    """Show finished cells on a terminal, whichever launcher computes them."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    over = threading.Event()
    bar = tqdm(total=len(keys), desc=name, unit="cell", file=sys.stderr)

    def watch() -> None:
        while not over.wait(0.5):
            bar.update(sum(store.has(one) for one in keys) - bar.n)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        bar.update(sum(store.has(one) for one in keys) - bar.n)
        bar.close()


def _hydra(name: str, arguments: list[str], conf: Path) -> None:
    """Let Hydra run the sweep with the chosen launcher, or answer a flag."""
    GlobalHydra.instance().clear()
    argv, sys.argv = sys.argv, [f"{name}.py", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name=name)(job)()
    finally:
        sys.argv = argv


def job(cfg: DictConfig) -> str:
    """Compute one cell unless its record exists; a failure becomes a record that says so."""
    store, name = Store(Path(cfg.results) / cfg.analysis), _key(cfg)
    if store.has(name) or _lacking(cfg):
        return name
    import torch
    from threadpoolctl import threadpool_limits

    module = importlib.import_module(cfg.module)
    settings = _settings(cfg)
    began, status, kind, row, arrays = time.perf_counter(), "done", "done", {}, {}
    log = ""
    threads = cfg.threads
    if threads:
        torch.set_num_threads(threads)
    with threadpool_limits(threads):
        try:
            row, arrays = module.cell(cfg)
        except BadInput as refusal:
            status, kind = str(refusal), "refused"
        except Exception as error:  # whatever a cell raises: its record keeps the trace, exit 1
            status, kind, log = _failure(error), "failed", traceback.format_exc()
    manifest = {
        "status": status,
        "kind": kind,
        "seconds": time.perf_counter() - began,
        "config": settings,
        "method_versions": dict(module.VERSIONS),
        **provenance(),
    }
    try:
        if taken := {"status", "kind"} & row.keys():
            raise ValueError(f"cell() returned the columns {sorted(taken)}, which the sweep sets")
        store.write(name, settings, {**row, "status": status, "kind": kind}, arrays, manifest, log)
    except (TypeError, ValueError) as error:  # what the cell returned cannot be stored
        said = {"status": _failure(error), "kind": "failed"}
        store.write(name, settings, said, {}, {**manifest, **said}, traceback.format_exc())
    return name


def _failure(error: Exception) -> str:
    """Return an exception as the status sentence of a failed cell."""
    return f"{type(error).__name__}: {error}"


def _finish(name: str, store: Store, keys: list[str], cfg: DictConfig) -> int:
    """Join records, draw, and write the table, the summary and the manifest."""
    table = store.table(keys)
    refused = table[table["kind"] == "refused"]
    for one in refused["key"]:  # a refusal is not a result: it must not outlive its cause
        store.discard(one)
    if len(refused):
        raise BadInput(str(refused.iloc[0]["status"]))
    done, failed = table[table["kind"] == "done"], table[table["kind"] == "failed"]
    for _, row in failed.iterrows():
        where = store.records / row["key"] / "error.log"
        print(f"{name}: a cell failed: {row['status']} (see {where})", file=sys.stderr)
    if not len(done):
        return 1
    module = importlib.import_module(cfg.module)
    drawn = module.render(done, store, cfg)
    for old in (*store.folder.glob(f"{name}*.pdf"), *store.folder.glob(f"{name}*.png")):
        if old.stem not in drawn:  # of other settings: it would not belong to this table
            old.unlink()
    for label, figure in drawn.items():
        if len(failed):
            figures.note(figure, f"{len(failed)} of {len(keys)} cells failed")
        figures.save(figure, store.folder / label)
    columns = [c for c in done.columns if c not in ("kind", "status")]
    done[columns].to_csv(store.folder / "table.csv", index=False, float_format="%.10g")
    (store.folder / "summary.md").write_text(_summary(name, module, done, failed, drawn))
    manifests = {one: store.manifest(one) for one in keys}
    seconds = sum(m["seconds"] for m in manifests.values())
    whole = {"analysis": name, "records": manifests, "seconds": seconds, "failed": len(failed)}
    (store.folder / "manifest.json").write_text(json.dumps(whole, indent=1, sort_keys=True))
    print(f"{name}: {len(done)} cells, {len(failed)} failed, {seconds:.0f} s computed in all")
    return 1 if len(failed) else 0


def _summary(name: str, module: Any, done: Any, failed: Any, drawn: Any) -> str:
    """Return the results as a page: figures, what they show, and the numbers."""
    shown = [c for c in getattr(module, "SUMMARY", list(done.columns)) if c in done.columns]
    lines = [f"# {name}", "", (module.__doc__ or "").strip(), "", OBJECTIVE, ""]
    lines += [line for label in drawn for line in (f"![{label}]({label}.png)", "")]
    lines += ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    for _, row in done[shown].iterrows():
        cells = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    if len(failed):
        lines += ["", f"{len(failed)} cells failed:", *[f"- {s}" for s in failed["status"]]]
    return "\n".join(lines) + "\n"


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved settings that determine a cell's numbers."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k not in NOT_NUMBERS}


def _key(cfg: DictConfig) -> str:
    return key(_settings(cfg), importlib.import_module(cfg.module).VERSIONS)
