"use strict";

/* The map: a canvas of points, each an image. Colour and form together tell the groups apart. */

if (byId("map-canvas")) {
  const canvas = byId("map-canvas");
  const pen = canvas.getContext("2d");
  const tip = byId("map-tip");
  const { images, layouts, classes, splits, answers } = report;
  const COLOURS = 10; // of the style sheet
  const REACH = 24; // pixels within which the pointer finds a point
  const NEIGHBOURS = 23;
  const FORMS = ["circle", "square", "triangle", "diamond"];
  const state = { layout: layouts.length - 1, colour: "label", only: -1, zoom: 1, x: 0, y: 0, at: -1 };
  let size = { width: 1, height: 1 };

  const MISTAKES = [
    { name: "right", colour: "--class-0", form: "circle" },
    { name: "wrong", colour: "--class-6", form: "cross" },
    { name: answers.length ? "not predicted (learned from)" : "not predicted", colour: "--class-3", form: "circle", small: true },
  ];

  function groupOf(number) {
    if (state.colour === "split") return images.split[number];
    if (state.colour === "error") {
      if (images.predicted[number] < 0) return 2;
      return images.predicted[number] === images.label[number] ? 0 : 1;
    }
    return images.label[number];
  }

  function groups() {
    if (state.colour === "error") return MISTAKES;
    const names = state.colour === "split" ? splits : classes;
    return names.map((name, k) => ({ name, colour: `--class-${k % COLOURS}`, form: FORMS[k % FORMS.length] }));
  }

  const nothing = { name: "no label", colour: "--class-8", form: "circle" };
  const points = () => layouts[state.layout].points;
  const isShown = (number) => state.only < 0 || images.label[number] === state.only;

  /* From the map's coordinates, within -1 and 1, to the canvas's pixels. */
  const scale = () => (Math.min(size.width, size.height) / 2 - 14) * state.zoom;
  const stretch = () => Math.min(1.6, size.width / size.height); // a wide canvas is used
  const left = (number) => size.width / 2 + (points()[2 * number] - state.x) * scale() * stretch();
  const top = (number) => size.height / 2 - (points()[2 * number + 1] - state.y) * scale();

  function trace(path, form, x, y, r) {
    if (form === "circle") path.moveTo(x + r, y), path.arc(x, y, r, 0, 2 * Math.PI);
    else if (form === "square") path.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
    else {
      const corners = {
        triangle: [[0, -1.25], [1.1, 0.8], [-1.1, 0.8]],
        diamond: [[0, -1.3], [1.15, 0], [0, 1.3], [-1.15, 0]],
        cross: [[0, -0.5], [0.9, -1.4], [1.4, -0.9], [0.5, 0], [1.4, 0.9], [0.9, 1.4], [0, 0.5], [-0.9, 1.4], [-1.4, 0.9], [-0.5, 0], [-1.4, -0.9], [-0.9, -1.4]],
      }[form];
      corners.forEach(([a, b], k) => path[k ? "lineTo" : "moveTo"](x + a * r, y + b * r));
      path.closePath();
    }
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const ratio = devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, size.width, size.height);
    const all = groups();
    const radius = Math.min(6, Math.max(2.2, 110 / Math.sqrt(images.path.length))) * Math.sqrt(Math.min(state.zoom, 4));
    const paths = new Map();
    for (let n = 0; n < images.path.length; n++) {
      const key = isShown(n) ? groupOf(n) : "faint";
      if (!paths.has(key)) paths.set(key, new Path2D());
      const { form, small } = all[key] ?? nothing;
      trace(paths.get(key), form, left(n), top(n), key === "faint" || small ? 0.6 * radius : radius);
    }
    const order = [...paths.keys()].sort((a, b) => rank(a) - rank(b));
    for (const key of order) {
      pen.globalAlpha = key === "faint" ? 0.8 : 0.85;
      pen.fillStyle = style.getPropertyValue(key === "faint" ? "--line" : (all[key] ?? nothing).colour);
      pen.fill(paths.get(key));
    }
    pen.globalAlpha = 1;
    if (state.at >= 0) {
      pen.strokeStyle = style.getPropertyValue("--ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(left(state.at), top(state.at), radius + 4, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  /* What is faint lies below, and mistakes above all else. */
  function rank(key) {
    if (key === "faint") return -2;
    if (state.colour !== "error") return key;
    return { 2: -1, 0: 0, 1: 1 }[key];
  }

  let asked = false;
  function redraw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); place(); });
  }

  function place() {
    tip.hidden = state.at < 0;
    if (state.at < 0) return;
    const [x, y] = [left(state.at), top(state.at)];
    const beyond = x + 16 + tip.offsetWidth > size.width;
    tip.style.left = `${Math.max(0, beyond ? x - 16 - tip.offsetWidth : x + 16)}px`;
    tip.style.top = `${Math.max(0, Math.min(y - 20, size.height - tip.offsetHeight))}px`;
  }

  function select(number, say = false) {
    if (number === state.at) return;
    state.at = number;
    canvas.style.cursor = number < 0 ? "" : "pointer";
    if (number >= 0) {
      const { label, split, path, prediction } = facts(number);
      const frame = named("span", "", "picture");
      const lines = [named("strong", label), named("span", ` ${split}`, "quiet"), named("br", "")];
      if (prediction) lines.push(named("bdi", prediction), named("br", ""));
      show(frame, number, path);
      tip.replaceChildren(frame, named("br", ""), ...lines, named("bdi", path, "path"));
    }
    if (say) byId("map-said").textContent = number < 0 ? "" : sentence(number);
    redraw();
  }

  function nearest(x, y, fits = () => true) {
    let [best, least] = [-1, Infinity];
    for (let n = 0; n < images.path.length; n++) {
      if (!isShown(n)) continue;
      const [dx, dy] = [left(n) - x, top(n) - y];
      const far = dx * dx + dy * dy;
      if (far < least && fits(dx, dy)) [best, least] = [n, far];
    }
    return { number: best, far: Math.sqrt(least) };
  }

  function neighbours(number) {
    const [x, y] = [left(number), top(number)];
    const far = (n) => (left(n) - x) ** 2 + (top(n) - y) ** 2;
    const found = [...images.path.keys()].filter(isShown).sort((a, b) => far(a) - far(b));
    view(`${facts(number).label}: neighbours on the map`, found.slice(0, NEIGHBOURS + 1), "The image itself first.");
  }

  /* The pointer. */
  let dragged = null;
  const spot = (event) => [event.offsetX, event.offsetY];
  canvas.addEventListener("pointermove", (event) => {
    if (dragged && (event.buttons & 1)) {
      state.x -= event.movementX / (scale() * stretch());
      state.y += event.movementY / scale();
      dragged.far += Math.abs(event.movementX) + Math.abs(event.movementY);
      return redraw();
    }
    const { number, far } = nearest(...spot(event));
    select(far <= REACH ? number : -1);
  });
  canvas.addEventListener("pointerdown", (event) => {
    dragged = event.pointerType === "mouse" || state.zoom > 1 ? { far: 0 } : null;
  });
  canvas.addEventListener("pointerup", (event) => {
    const moved = dragged !== null && dragged.far > 4;
    dragged = null;
    if (moved) return;
    const { number, far } = nearest(...spot(event));
    if (far > REACH) return select(-1);
    if (event.pointerType === "mouse" || number === state.at) neighbours(number);
    select(number);
  });
  canvas.addEventListener("pointerleave", () => { dragged = null; select(-1); });

  /* The keyboard: the next image in a direction is the nearest one within a quarter of the plane. */
  const WAYS = {
    ArrowLeft: (dx, dy) => -dx > Math.abs(dy), ArrowRight: (dx, dy) => dx > Math.abs(dy),
    ArrowUp: (dx, dy) => -dy > Math.abs(dx), ArrowDown: (dx, dy) => dy > Math.abs(dx),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (WAYS[event.key]) {
      const from = state.at < 0 ? [size.width / 2, size.height / 2] : [left(state.at), top(state.at)];
      const { number } = nearest(...from, state.at < 0 ? undefined : WAYS[event.key]);
      if (number >= 0) select(number, true);
    } else if (event.key === "Enter" && state.at >= 0) neighbours(state.at);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "Escape") select(-1, true);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => select(-1, true));

  function zoom(by) {
    if (by > 1 && state.at >= 0) [state.x, state.y] = [points()[2 * state.at], points()[2 * state.at + 1]];
    state.zoom = by ? Math.min(40, Math.max(1, state.zoom * by)) : 1;
    if (state.zoom === 1) state.x = state.y = 0;
    canvas.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
    redraw();
  }
  byId("map-in").addEventListener("click", () => zoom(1.5));
  byId("map-out").addEventListener("click", () => zoom(1 / 1.5));
  byId("map-reset").addEventListener("click", () => zoom(0));

  /* The controls. */
  function update() {
    state.layout = Number(byId("map-layout").value);
    state.colour = byId("map-colour").value;
    state.only = byId("map-class").value === "" ? -1 : Number(byId("map-class").value);
    state.at = -1;
    byId("map-note").textContent = layouts[state.layout].note;
    legend();
    redraw();
  }

  function legend() {
    const counts = new Map();
    for (let n = 0; n < images.path.length; n++) {
      if (isShown(n)) counts.set(groupOf(n), (counts.get(groupOf(n)) ?? 0) + 1);
    }
    const all = [...groups().entries(), [-1, nothing]].filter(([key]) => counts.has(key));
    byId("map-legend").replaceChildren(...all.map(([key, { name, colour, form }]) => {
      const line = document.createElement("li");
      line.append(swatch(form, colour), named("bdi", name), named("span", ` ${counts.get(key)}`, "quiet"));
      return line;
    }));
    const shown = [...counts.values()].reduce((a, b) => a + b, 0);
    canvas.setAttribute("aria-label", `Map of ${shown} images, coloured by ${byId("map-colour").selectedOptions[0].text}`);
  }

  function swatch(form, colour) {
    const points = [];
    trace({
      moveTo: (x, y) => points.push(`M${x} ${y}`), lineTo: (x, y) => points.push(`L${x} ${y}`), closePath: () => points.push("Z"),
      arc: (x, y, r) => points.push(`A${r} ${r} 0 1 1 ${x - r} ${y}A${r} ${r} 0 1 1 ${x + r} ${y}`),
      rect: (x, y, w, h) => points.push(`M${x} ${y}h${w}v${h}h${-w}Z`),
    }, form, 6, 6, 4);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 12 12");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", points.join(""));
    path.style.fill = `var(${colour})`;
    svg.append(path);
    return svg;
  }

  function resize() {
    const ratio = devicePixelRatio || 1;
    const found = { width: canvas.clientWidth, height: canvas.clientHeight };
    if (found.width === size.width && found.height === size.height) return;
    size = found;
    canvas.width = Math.round(size.width * ratio);
    canvas.height = Math.round(size.height * ratio);
    draw(); // at once: a new size has wiped it
  }

  for (const name of ["map-layout", "map-colour", "map-class"]) byId(name).addEventListener("change", update);
  new ResizeObserver(resize).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  resize();
  update();
}
