"use strict";
(() => {
  const { colors, kernels, pictures } = JSON.parse(document.getElementById("plots").textContent);
  const canvas = document.getElementById("heat"), choice = document.getElementById("heat-choice"), told = document.getElementById("heat-entry");
  const part = canvas.closest(".interactive"), context = canvas.getContext("2d");
  if (!context) return;
  const shown = [...part.querySelectorAll("canvas.row")].map((one) => one.getContext("2d"));
  let kernel, values, side, sheet, at = null;

  const color = (value) => {  // of a byte, between the ends of the network's scale
    const [low, high] = kernel.ends, steps = colors.length - 1;
    const place = Math.min(1, Math.max(0, (value - low) / (high - low))) * steps, step = Math.min(steps - 1, Math.floor(place));
    return colors[step].map((c, i) => c + (place - step) * (colors[step + 1][i] - c));
  };
  const draw = () => {
    const image = context.createImageData(side, side);
    for (let i = 0; i < values.length; i++) image.data.set([...color(values[i]), 255], 4 * i);
    context.putImageData(image, 0, 0);
    if (at) {
      context.fillStyle = "#ffffff99";
      context.fillRect(at[1], 0, 1, side);
      context.fillRect(0, at[0], side, 1);
      context.fillStyle = "#d55e00";
      context.fillRect(at[1], at[0], 1, 1);
    }
  };
  const show = () => {  // the two samples of an entry
    if (!sheet || !at) return;
    const { width, height } = pictures;
    shown.forEach((one) => { one.canvas.style.visibility = "visible"; });
    shown.forEach((one, i) => one.drawImage(sheet, 0, kernel.pictures[at[i]] * height, width, height, 0, 0, width, height));
  };
  const named = (row) => `${kernel.labels[row] ? `class ${kernel.labels[row]}, ` : ""}no. ${1 + row - kernel.labels.indexOf(kernel.labels[row])}`;
  const tell = () => {
    const value = kernel.low + values[at[0] * side + at[1]] * (kernel.high - kernel.low) / 255;
    told.textContent = `${named(at[0])} and ${named(at[1])}: ${value.toFixed(2)}`;
  };
  const move = (row, column) => {
    at = [row, column].map((i) => Math.min(side - 1, Math.max(0, i)));
    draw();
    tell();
    show();
  };
  const choose = () => {
    kernel = kernels[choice.selectedIndex];
    values = Uint8Array.from(atob(kernel.values), (c) => c.charCodeAt(0));
    side = canvas.width = canvas.height = kernel.labels.length;
    if (at) move(...at); else draw();
  };
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  choice.addEventListener("change", choose);
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    move(Math.floor((event.clientY - box.top) / box.height * side), Math.floor((event.clientX - box.left) / box.width * side));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    move(...(at ? [at[0] + step[0], at[1] + step[1]] : [0, 0]));
  });
  if (pictures) {
    shown.forEach((one) => Object.assign(one.canvas, { width: pictures.width, height: pictures.height }));
    const image = new Image();
    image.addEventListener("load", () => { sheet = image; show(); });
    image.src = pictures.source;
  }
  part.hidden = false;
  choose();
})();
