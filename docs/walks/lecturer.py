"""An hour on gates: what they are, what training does to them, and a figure for a slide.

``python lecturer.py`` writes gates.png, slide.png, union.safetensors and study/report.html.
"""

import matplotlib.pyplot as plt

import npk

points = npk.data.toy("union", 600, seed=0)
fresh = npk.data.toy("union", 400, seed=1)

# a network whose gates are lines in the plane, in every layer
net = npk.networks.build(
    "fc", "dlgn", input_shape=(2,), classes=2, hidden=[12, 12], value_input="x", seed=0
)
trained = npk.networks.train(
    net,
    points.X,
    points.y,
    epochs=60,
    snapshots=[0, 60],
    learning_rate=1e-2,
    seed=0,
    progress=False,
)
print(f"accuracy on points held back from training: {trained.curve_validation[-1]:.1%}")
ax = npk.plot.hyperplanes(net, points.X, points.y, layer=1)
ax.figure.savefig("gates.png", dpi=110)

# the kernel of the gates alone, before training and after
options = {"scale": "cosine", "value_input": "ones", "progress": False}
snapshots = {"before training": trained.snapshots[0], "after training": trained.snapshots[60]}
for when, snapshot in snapshots.items():
    aligned = npk.measures.alignment(npk.kernel(snapshot, fresh.X, **options), fresh.y)
    print(f"{when}: alignment with the classes {aligned:.3f}")

# a slide, 16:9 with large letters: the kernel of points on a circle
circle = npk.data.circle_points(180, radius=0.7)
with plt.rc_context({"font.size": 20}):
    figure, axes = plt.subplots(1, 2, figsize=(16, 9), layout="constrained")
    for ax, (when, snapshot) in zip(axes, snapshots.items(), strict=True):
        npk.plot.on_circle(npk.kernel(snapshot, circle.X, **options), ax=ax)
        ax.set_title(when)
    figure.savefig("slide.png", dpi=120)

# a page to hand out: what the gates have learnt, beside all honest rivals
npk.save(net, "union.safetensors")
result = npk.study(net, fresh, seen=False, n=(20, 60), out="study", progress=False)
for one in result.differences:
    print(
        f"trained gates - {one.against}, n = {one.samples}: {one.difference:+.3f} ± {one.error:.3f}"
    )
