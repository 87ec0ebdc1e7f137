"""The commands that ask what a network has learnt and what its paths do: suites, instruments, studies."""

from pathlib import Path
from typing import Annotated

import typer

from npk import choices
from npk.cli import options
from npk.cli.commands import app


@app.command(epilog="Example: npk bench invariance --out invariance")
@options.prepares
def bench(
    given: options.Given,
    suite: Annotated[choices.SuiteName, typer.Argument(show_default=False)],
    ckpts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[CKPT]...", help="Networks of yours, beside those built in."),
    ] = None,
    data: options.MaybeData = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the run; what is there already is kept.")
    ] = Path("bench"),
    samples: options.FirstSamples = 4,
    shifts: options.Shifts = None,
    kinds: Annotated[
        bool,
        typer.Option("--kinds/--no-kinds", help="Networks of many kinds, with random weights."),
    ] = True,
    seed: options.Seed = 0,
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    json: options.Json = None,
) -> None:
    """Run a suite on networks of many kinds and on checkpoints (1: a prediction does not hold)."""
    from npk.cli import benching, reading, tables

    benching.check(suite, out, ckpts or [], kinds, shifts)
    reading.check_place(json)
    how = reading.How(arch, arch_option, output, layout, key, fixed)
    loading = given.loading(*(ckpts or []))
    of = benching.material(
        ckpts or [], how, (data, samples), (seed, kinds), loading, tables.samples
    )
    if suite == "ensemble":
        sums = benching.ensemble(of, out)
        tables.ensemble_suite(sums, out)
        reading.save(sums, json)
        raise typer.Exit(0 if all(one.passed for one in sums.runs) else 1)
    found = benching.invariance(of, fixed, shifts, out)
    tables.suite(found, out)
    reading.save(found, json)
    raise typer.Exit(0 if all(one.passed for one in found.checks) else 1)


@app.command(epilog="Example: npk spectrum model.safetensors --data digits --figure spectrum.png")
@options.prepares
def spectrum(
    given: options.Given,
    ckpt: options.CheckpointOrGates,
    data: options.MaybeData = None,
    samples: options.FirstSamples = 50,
    scale: options.Scale = "fan_in",
    gates: options.Gates = "auto",
    bias: options.Bias = "auto",
    backend: options.Backend = "auto",
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it: a .png, .svg or .pdf file.")
    ] = None,
    json: options.Json = None,
) -> None:
    """Tell how much of K(x, x) comes from sub-networks of each number of layers."""
    from npk.cli import instruments, reading, tables

    reading.check_place(json)
    instruments.check_figure(figure)
    how = reading.How(arch, arch_option, output, layout, key, fixed)
    net, X = instruments.few(ckpt, how, data, samples, given, tables.samples)
    of = {"scale": scale, "gates": gates, "bias": bias, "backend": backend}
    found = instruments.spectrum(net, X, ckpt.stem, figure, of)
    tables.spectrum(found)
    reading.save(found.result(), json)


@app.command(epilog="Example: npk plot K.zarr --out K.png")
def plot(
    store: Annotated[
        Path,
        typer.Argument(
            metavar="STORE",
            help="A folder that `npk kernel` or `npk gates` wrote, or a .npy file of a kernel.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .png, .svg or .pdf file.", show_default=False)
    ],
    what: Annotated[
        choices.FigureName | None,
        typer.Option(help="The first three of a kernel, the others of gates."),
    ] = None,
    labels: options.Labels = None,
) -> None:
    """Draw a kernel, or what gates do."""
    from npk.cli import instruments, tables

    instruments.check_figure(out, "--out")
    instruments.draw(store, what, labels, out)
    tables.say(str(out))


@app.command(epilog="Example: npk lesions model.safetensors --data digits --samples 200")
@options.prepares
def lesions(
    given: options.Given,
    ckpt: options.Checkpoint,
    data: options.Data,
    samples: options.FirstSamples = 200,
    bias: options.Bias = "auto",
    gates: options.Gates = "auto",
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    json: options.Json = None,
) -> None:
    """Leave out each block of a network: what the kernel predicts, what is lost, what it costs."""
    from npk.checks.lesions import lesions as lesion_table
    from npk.cli import reading, tables

    reading.check_place(json)
    net = reading.How(arch, arch_option, output, layout, key, fixed).network(ckpt)
    loading = given.loading(ckpt)
    whole = loading.load(data)
    tables.samples(reading.about_samples(loading, net, whole))
    y = None if whole.y is None else whole.y[:samples]
    found = lesion_table(
        net, whole.X[:samples], y, bias=bias, gates=gates, progress=True, name=ckpt.stem
    )
    tables.lesions(found)
    reading.save(found, json)


@app.command(epilog="Example: npk study model.safetensors --data fresh.npz --fresh --out study")
@options.prepares
def study(
    given: options.Given,
    ckpt: Annotated[
        list[Path],
        typer.Argument(
            metavar="CKPT...", help="Checkpoints, or folders of them.", show_default=False
        ),
    ],
    data: options.Data,
    test: options.HalfTest = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the study; a stopped one goes on.")
    ] = Path("study"),
    labels: options.LabelsOfData = None,
    seen: options.Seen = None,
    n: Annotated[
        str | None,
        typer.Option(
            "--n", "-n", metavar="N,N,...", help="Fresh samples that machines are fitted to."
        ),
    ] = None,
    splits: options.Splits = 3,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Such as 10min: chooses n and the test samples."),
    ] = None,
    name: Annotated[
        list[str], typer.Option(help="What to call a checkpoint; repeated, in their order.")
    ] = [],  # noqa: B006
    baselines: Annotated[
        str, typer.Option(help="Of untrained, random gates, penultimate, RBF, logistic; or none.")
    ] = "penultimate,untrained,random gates,RBF,logistic",
    checks: Annotated[
        str, typer.Option(help="Of duality, invariance, ensemble; or none.")
    ] = "duality,invariance,ensemble",
    scale: options.Scale = "cosine",
    gates: options.Gates = "auto",
    value_input: options.ValueInput = "auto",
    bias: options.Bias = "auto",
    backend: options.Backend = "auto",
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    json: options.Json = None,
) -> None:
    """What gates have learnt: machines on few fresh samples, measures, checks (1: one failed), page."""
    from npk.cli import reading, studying, tables
    from npk.progress import as_progress
    from npk.studies.asking import conduct
    from npk.studies.kernels import Asked
    from npk.studies.running import within_budget

    reading.check_folder(out)
    reading.check_place(json)
    asked = studying.question(
        ckpt,
        data,
        test,
        labels,
        reading.How(arch, arch_option, output, layout, key, fixed),
        given,
        tables.samples,
        out=out,
        names=name,
        seen=seen,
        n=studying.sizes(n),
        splits=splits,
        budget=budget,
        baselines=studying.words(baselines),
        checks=studying.words(checks),
        asked=Asked(scale, gates, value_input, bias, backend),
        seed=seed,
    )
    if dry_run:
        cost = within_budget(asked, out)[1]
        tables.say(f"{cost}. Nothing was computed or written.")
        reading.save(cost.result(), json)
        return
    result = conduct(asked, out, as_progress(True))
    tables.study(result, out)
    reading.save(result, json)
    raise typer.Exit(0 if all(check.passed for check in result.checks) else 1)


@app.command(epilog="Example: npk track model-epochs --data fresh.npz --fresh --out track")
@options.prepares
def track(
    given: options.Given,
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR",
            help="Folder of checkpoints, in the order of a number in their names.",
            show_default=False,
        ),
    ],
    data: options.Data,
    test: options.HalfTest = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the track; a stopped one goes on.")
    ] = Path("track"),
    labels: options.LabelsOfData = None,
    curves: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Curves of the training: JSON of `npk train --json`."),
    ] = None,
    seen: options.Seen = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=2, help="Fresh samples of each draw; 100.")
    ] = None,
    splits: options.Splits = 3,
    scale: options.Scale = "cosine",
    gates: options.Gates = "auto",
    value_input: options.ValueInput = "auto",
    bias: options.Bias = "auto",
    backend: options.Backend = "auto",
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """Follow kernel and gates through a training: measures, distances, flips, machines, a page."""
    from npk.cli import reading, studying, tables
    from npk.progress import as_progress
    from npk.studies.kernels import Asked
    from npk.tracks import checkpoints_of, conduct, names_of, of_one_size

    reading.check_folder(out)
    reading.check_place(json)
    stages, known = checkpoints_of(run_dir), studying.curves(curves, run_dir)
    asked = studying.question(
        list(stages.values()),
        data,
        test,
        labels,
        reading.How(arch, arch_option, output, layout, key, fixed),
        given,
        tables.samples,
        out=out,
        names=names_of(stages),
        seen=seen,
        n=n,
        splits=splits,
        baselines=("penultimate",),
        checks=(),
        asked=Asked(scale, gates, value_input, bias, backend),
        seed=seed,
    )
    asked = of_one_size(asked, n is None)
    found = conduct(asked, list(stages), known, out, as_progress(True))
    tables.track(found, out)
    reading.save(found, json)
