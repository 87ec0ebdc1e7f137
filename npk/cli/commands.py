"""The commands. Each says what it takes, calls the library, and prints what came out."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from npk import __version__, choices
from npk.cli import options
from npk.errors import OptionError

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"npk {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: npk demo --out demo")
def npk(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Results and errors alone, no progress, no notes; anywhere too."
        ),
    ] = False,
) -> None:
    """The neural path kernel of ReLU networks: train, compute, classify, check, report."""


@app.command(epilog="Example: npk demo --out demo --data mnist5k")
def demo(
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the run; what is there already is used again."),
    ] = Path("demo"),
    data: Annotated[str, typer.Option(help="digits or mnist5k.")] = "digits",
    seed: options.Seed = 0,
    json: options.Json = None,
) -> None:
    """The whole story on bundled data: training, kernels, machines, checks (1: one failed), report."""
    from npk.cli import reading, tables
    from npk.demo import run

    reading.check_place(json)
    results = run(out, data=data, seed=seed, progress=True)
    tables.study(results, out)
    reading.save(results, json)
    raise typer.Exit(0 if all(check.passed for check in results.checks) else 1)


@app.command(
    epilog="Example: npk train conv --kind dlgn --data digits --option channels=64,64 "
    "--out dlgn.safetensors"
)
@options.prepares
def train(
    given: options.Given,
    arch: Annotated[choices.ArchName, typer.Argument(show_default=False)],
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option(metavar="CKPT", help="The .safetensors file to write.", show_default=False),
    ],
    kind: Annotated[choices.KindName, typer.Option(help="Where its gates come from.")] = "dnn",
    option: Annotated[
        list[str],
        typer.Option(metavar="KEY=JSON", help="Option of the architecture; may be repeated."),
    ] = [],  # noqa: B006
    regime: Annotated[
        choices.RegimeName | None,
        typer.Option(help="How it is trained; as suits the kind if left out."),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Trained network whose gates flnpf copies.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = 60,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 64,
    optimizer: Annotated[choices.OptimizerName, typer.Option()] = "adam",
    loss: Annotated[choices.LossName, typer.Option()] = "cross-entropy",
    learning_rate: Annotated[float, typer.Option(help="The largest of the schedule.")] = 3e-3,
    weight_decay: Annotated[float, typer.Option(help="Of every parameter that learns.")] = 0.0,
    momentum: Annotated[float, typer.Option(help="Of sgd.")] = 0.9,
    schedule: Annotated[
        choices.ScheduleName, typer.Option(help="Of the learning rate.")
    ] = "one-cycle",
    warm_up: Annotated[
        float, typer.Option(metavar="EPOCHS", help="Linear rise before the schedule.")
    ] = 0.0,
    milestones: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCHS",
            help="After which step divides the rate by 10, such as 30,45; half and three quarters "
            "of all if left out.",
        ),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target that is spread over all classes.")
    ] = 0.0,
    augment: Annotated[
        str | None, typer.Option(help="shift, flip, crop, or several with commas.")
    ] = None,
    shift: Annotated[int, typer.Option(metavar="PIXELS", help="Of --augment shift and crop.")] = 1,
    validation: Annotated[float, typer.Option(help="Share kept for validation.")] = 0.1,
    select: Annotated[
        choices.SelectName | None,
        typer.Option(help="Epoch that is taken; last if left out and the schedule ends at rate 0."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without improvement.")
    ] = None,
    snapshots: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCHS", help="Save the network after these, such as 0,1,2,4, beside CKPT."
        ),
    ] = None,
    device: Annotated[choices.DeviceName, typer.Option()] = "cpu",
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State of the training after each epoch, to go on from."),
    ] = None,
    test: options.QuarterTest = None,
    seed: options.Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="SEEDS", help="Several, such as 0,1,2: a network each, mean, standard error."
        ),
    ] = None,
    json: options.Json = None,
) -> None:
    """Train a network on three quarters of DATA and measure it on the last quarter; or on all of
    DATA with --test.
    """
    options_given = locals()
    from npk.cli import tables, training

    steps = {name: options_given[name] for name in training.STEPS}
    for name in ("milestones", "snapshots"):
        if options_given[name] is not None:
            steps[name] = training.whole_numbers(f"--{name}", options_given[name])
    places = {"features": features, "resume": resume, "json": json}
    numbers = training.chosen_seeds(seed, seeds)
    loading = given.loading()
    job = training.Job(
        arch, kind, option, data, test, out, numbers, loading=loading, steps=steps, **places
    )
    tables.training(job.run(tables.trial))


@app.command(epilog="Example: npk inspect model.safetensors --data digits")
@options.prepares
def inspect(
    ckpt: options.Checkpoint,
    given: options.Given,
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    bias: options.Bias = "auto",
    data: options.MaybeData = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="Shape of a sample where it is not known.")
    ] = None,
    json: options.Json = None,
) -> None:
    """How npk reads a network: its nodes and gates, which shifts leave the kernel alone, what a
    kernel will cost on this machine.
    """
    began = perf_counter()
    from npk.cli import cost, reading, tables

    reading.check_place(json)
    net = reading.How(arch, arch_option, output, layout, key, fixed).network(ckpt)
    loading = given.loading(ckpt)
    samples = None if data is None else loading.load(data)
    X = reading.example(net, samples, input_shape, most=512)
    seen = cost.look(net, X, fixed, bias, began=began)
    notes = [] if samples is None else reading.about_samples(loading, net, samples)
    found = cost.report(seen, ckpt, data or "", notes)
    tables.samples(found.notes)
    tables.graph(found)
    tables.structure(found)
    tables.biases(found.bias, shifted=found.shifted)
    tables.cost(found)
    reading.save(found, json)


@app.command(epilog="Example: npk gates model.safetensors --data digits --out digits.gates")
@options.prepares
def gates(
    ckpt: options.CheckpointOrGates,
    given: options.Given,
    data: options.MaybeData = None,
    out: Annotated[
        Path | None, typer.Option(metavar="GATES", help="The folder to write.", show_default=False)
    ] = None,
    statistics: Annotated[
        bool,
        typer.Option("--statistics", help="Tell what the gates do, layer by layer, and NASWOT."),
    ] = False,
    gates: options.Gates = "auto",
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    json: options.Json = None,
) -> None:
    """Record the gates of DATA; `npk kernel` takes the folder in the place of checkpoint and data."""
    from npk.cli import measuring, reading, tables

    measuring.check_gates(out, statistics, json)
    how = reading.How(arch, arch_option, output, layout, key, fixed)
    with measuring.gates_of(ckpt, how, data, gates, out, given, tables.samples) as store:
        if out is not None:
            size = f"{tables.si(store.nbytes)}B"
            tables.say(f"{out}: {len(store)} samples, {store.layers} gate layers, {size}")
        if statistics:
            report = measuring.gate_report(store, ckpt, data)
            tables.gate_statistics(report)
            reading.save(report, json)


@app.command(epilog="Example: npk kernel model.safetensors --data digits --out K.zarr")
@options.prepares
def kernel(
    ckpt: options.CheckpointOrGates,
    given: options.Given,
    data: options.MaybeData = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="K.zarr", help="Store of tiles, or FILE.npy.", show_default=False),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Samples of the columns; the same as the rows if left out."
        ),
    ] = None,
    subset: Annotated[
        choices.SubsetName | None,
        typer.Option(help="One side of the split that train and demo use."),
    ] = None,
    against_subset: Annotated[
        choices.SubsetName | None, typer.Option(help="The same for --against.")
    ] = None,
    seed: options.Seed = 0,
    scale: options.Scale = "fan_in",
    dtype: options.Dtype = "float32",
    gates: options.Gates = "auto",
    value_input: options.ValueInput = "auto",
    bias: options.Bias = "auto",
    of: options.Of = "paths",
    backend: options.Backend = "auto",
    memory: options.Memory = None,
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Scheduler of a Dask cluster that computes the tiles."
        ),
    ] = None,
    events: options.Events = False,
    json: options.Json = None,
    dry_run: options.DryRun = False,
) -> None:
    """Compute the kernel of DATA, or of DATA (rows) with --against (columns); a stopped run goes on."""
    began = perf_counter()
    from npk.cli import reading, writing
    from npk.gram.engine import Engine
    from npk.gram.kernel import NeuralPathKernel
    from npk.gram.options import KernelOptions, Promise

    writing.check_kernel(out, dask)
    reading.check_place(json)
    if out is None and not dry_run:
        raise OptionError(
            "--out is missing: it names the store or .npy file to write. Add for "
            "instance --out K.zarr, or --dry-run."
        )
    engine = Engine(
        KernelOptions(scale, dtype, gates, value_input, bias, backend, of),
        Promise(memory),
        writing.progress(events),
    )
    how = reading.How(arch, arch_option, output, layout, key, fixed)
    rows, cols = (data, subset), (against, against_subset)
    net, X, Y = reading.kernel_sides(ckpt, how, rows, cols, seed, given)
    path_kernel = NeuralPathKernel.of(net, engine, fixed)
    notes = writing.tell_samples(ckpt, given, path_kernel, X)
    if out is None or dry_run:
        plan = writing.dry_run(path_kernel, X, Y, out, ckpt, notes, began)
        reading.save(plan, json)
    else:
        reading.save(writing.write_kernel(path_kernel, X, Y, out, dask, ckpt, notes), json)


@app.command(epilog="Example: npk verify-store K.zarr")
def verify_store(
    store: Annotated[
        Path,
        typer.Argument(
            metavar="STORE",
            help="A store that `npk kernel` or `npk gates` wrote.",
            show_default=False,
        ),
    ],
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop what is damaged: `npk kernel` computes it again.")
    ] = False,
    json: options.Json = None,
) -> None:
    """Read all of a store and compare it with its checksums; the exit code is 2 if something is
    damaged.
    """
    from npk.cli import reading, tables, writing

    reading.check_place(json)
    tables.verified(writing.verified(store, drop, json))


@app.command(epilog="Example: npk fit model.safetensors --data digits --solver svm")
@options.prepares
def fit(
    ckpt: options.CheckpointOrStore,
    given: options.Given,
    data: options.MaybeData = None,
    labels: options.Labels = None,
    test: options.QuarterTest = None,
    solver: Annotated[
        choices.SolverName,
        typer.Option(
            help="gp: a Gaussian process; nystroem: landmarks; features: random path features."
        ),
    ] = "ridge",
    components: Annotated[
        int | None, typer.Option(help="Landmarks of nystroem (500) or random path features (2000).")
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            help="Of network, penultimate, untrained, RBF, logistic, with commas; or all."
        ),
    ] = "none",
    scale: options.Scale = "cosine",
    dtype: options.Dtype = "float32",
    of: options.Of = "paths",
    gates: options.Gates = "auto",
    value_input: options.ValueInput = "auto",
    bias: options.Bias = "auto",
    backend: options.Backend = "auto",
    memory: options.MemoryOfKernels = None,
    seed: options.Seed = 0,
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    json: options.Json = None,
) -> None:
    """Fit a kernel machine on the network's kernel; its parameter is chosen on the training
    samples.
    """
    from npk.cli import fitting, reading, solvers, studying, tables
    from npk.gram.engine import Engine
    from npk.gram.kernel import NeuralPathKernel
    from npk.gram.options import KernelOptions, Promise
    from npk.progress import as_progress

    reading.check_place(json)
    machine = solvers.solver_named(solver, components, seed)
    asked = fitting.baselines_named(
        fitting.BASELINES if baselines == "all" else studying.words(baselines)
    )
    engine = Engine(
        KernelOptions(scale, dtype, gates, value_input, bias, backend, of),
        Promise(memory),
        as_progress(True),
    )
    solvers.check_options(machine, engine)
    how = reading.How(arch, arch_option, output, layout, key, fixed)
    if fitting.is_stored(ckpt, (data, test), how, given, asked, machine):
        found, sizes, taken = fitting.fit_stored(machine, ckpt, labels, engine, seed)
        tables.fitted(found.on_training, found.test, sizes)
        report = fitting.report(found, sizes, of=ckpt, data="", scale=scale, bias=taken)
    else:
        loading = given.loading(ckpt)
        sides = reading.training_and_test(str(data), test, seed, loading, labels)
        subject = studying.subject(ckpt, ckpt.stem, how)
        made = NeuralPathKernel.of(subject.net, engine, fixed)
        found = fitting.fit(machine, made, *sides, network=ckpt.stem)
        sizes, taken = (len(sides[0]), len(sides[1])), made.settled(sides[0].X[:1]).bias
        tables.fitted(found.on_training, found.test, sizes)
        own = reading.own(subject.net, sides[1])
        tables.samples([line for line in (loading.told(sides[1]), str(own or "")) if line])
        tables.biases(taken)
        report = fitting.report(
            found, sizes, of=ckpt, data=str(data), scale=scale, bias=taken, own=own
        )
        if asked:
            table, notes = fitting.beside(asked, found, machine, made, subject, *sides, seed, fixed)
            tables.machines(table, notes, sizes[1])
            report = fitting.with_others(report, table)
    reading.save(report, json)


@app.command(epilog="Example: npk check invariance model.safetensors --data digits")
@options.prepares
def check(
    given: options.Given,
    statement: Annotated[choices.CheckName, typer.Argument(show_default=False)],
    ckpt: options.Checkpoint,
    data: options.Data,
    samples: options.FirstSamples = 8,
    shifts: options.Shifts = None,
    group: options.Group = None,
    bias: options.Bias = "auto",
    gates: options.MaybeGates = None,
    value_input: options.MaybeValueInput = None,
    arch: options.Arch = None,
    arch_option: options.ArchOption = [],  # noqa: B006
    key: options.Key = None,
    output: options.Output = None,
    layout: options.Layout = "nchw",
    fixed: options.Fixed = [],  # noqa: B006
    json: options.Json = None,
) -> None:
    """Check a statement of the theory on a network; the exit code is 1 if it does not hold."""
    from npk.cli import checking, reading, tables

    reading.check_place(json)
    kernel = {"bias": bias, "gates": gates, "value_input": value_input, "fixed": fixed}
    asked = {"shifts": shifts, "group": group, **kernel}
    test = checking.asked(statement, asked)
    net = reading.How(arch, arch_option, output, layout, key, fixed).network(ckpt)
    loading = given.loading(ckpt)
    whole = loading.load(data)
    tables.samples(reading.about_samples(loading, net, whole))
    result = test(net, whole.X[:samples], name=ckpt.stem)
    tables.check(result)
    reading.save(result, json)
    raise typer.Exit(0 if result.passed else 1)


@app.command(epilog="Example: npk report demo")
def report(
    run_dir: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_DIR",
            help="Folder that `npk study`, `npk track` or `npk demo` wrote.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page to write; RUN_DIR/report.html if left out."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the figures as PNG files.")
    ] = None,
) -> None:
    """Write the page of a run again from its results.json; neither torch nor data is needed."""
    from npk.cli import reading, tables, writing

    page = out or run_dir / "report.html"
    reading.check_page(page)
    if run_dir.is_dir():  # else there is nothing to write, and that is said
        reading.check_place(page)
    reading.check_folder(figures)
    for path in writing.write_report(run_dir, page, figures):
        tables.say(str(path))
