"use strict";

const report = JSON.parse(document.getElementById("record").textContent);
const byId = (id) => document.getElementById(id);

/* Pictures: each stands once in the record, and is shown wherever its number is. */

const TINY = 48; // pixels up to which a picture is enlarged without blurring

function picture(place, source, words) {
  const image = document.createElement("img");
  image.alt = words;
  image.decoding = "async";
  image.addEventListener("load", () => {
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY);
  });
  image.src = `data:image/webp;base64,${source}`;
  place.replaceChildren(image);
  place.classList.remove("none");
}

function show(place, number, words) {
  const { images, missing, pictures } = report;
  const at = images.picture[number];
  if (at >= 0) return picture(place, pictures[at], words);
  place.replaceChildren(missing[number] ?? "not among the pictures here");
  place.classList.add("none");
}

function waiting(place) {
  if (place.dataset.picture) {
    picture(place, report.pictures[Number(place.dataset.picture)], place.dataset.words);
  } else {
    show(place, Number(place.dataset.image), place.dataset.words);
  }
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(entry.target);
    waiting(entry.target);
  }
}, { rootMargin: "800px" });
for (const place of document.querySelectorAll("[data-image], [data-picture]")) near.observe(place);
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll("[data-image], [data-picture]")) waiting(place);
});

/* Words about an image. */

const percent = (share) => `${(100 * share).toFixed(1)}%`;

function named(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function facts(number) {
  const { images, classes, splits } = report;
  const label = images.label[number];
  const said = images.predicted[number];
  return {
    label: label < 0 ? "no label" : classes[label],
    split: splits[images.split[number]],
    path: images.path[number],
    prediction: said < 0 ? "" : `${said === label ? "✓" : "✗"} ${classes[said]} ${percent(images.confidence[number])}`,
  };
}

function sentence(number) {
  const { label, split, path, prediction } = facts(number);
  const words = prediction.replace("✓", "rightly predicted").replace("✗", "predicted");
  return [label, split, words, path].filter(Boolean).join(", ");
}

function tile(number) {
  const { label, split, path, prediction } = facts(number);
  const figure = named("figure", "", "tile");
  const place = named("span", "", "picture");
  const caption = named("figcaption", "");
  show(place, number, path);
  caption.append(named("bdi", label, "said"), named("span", split, "quiet"));
  if (prediction) caption.append(named("bdi", prediction));
  caption.append(named("bdi", path, "path"));
  figure.append(place, caption);
  return figure;
}

/* The viewer: a dialog of pictures. The browser holds the focus in it and gives it back. */

function view(title, numbers, note = "") {
  byId("viewer-title").textContent = title;
  byId("viewer-note").textContent = note;
  byId("viewer-note").hidden = !note;
  byId("viewer-pictures").replaceChildren(...numbers.map(tile));
  byId("viewer").showModal();
  byId("viewer").scrollTop = 0;
}

byId("viewer-close").addEventListener("click", () => byId("viewer").close());
byId("viewer").addEventListener("click", (event) => {
  if (event.target === byId("viewer")) byId("viewer").close(); // beside the dialog
});

/* A number of the confusion matrix opens its pictures. */

const MOST = 200; // pictures that the viewer shows at once

for (const cell of document.querySelectorAll(".cell")) {
  cell.addEventListener("click", () => {
    const { images, classes } = report;
    const [label, predicted] = [Number(cell.dataset.label), Number(cell.dataset.predicted)];
    const answer = Number(cell.closest("[data-answer]").dataset.answer);
    const found = [...images.path.keys()]
      .filter((n) => images.answered[n] === answer && images.label[n] === label && images.predicted[n] === predicted)
      .sort((a, b) => images.confidence[b] - images.confidence[a]);
    const all = Number(cell.textContent.replaceAll(",", ""));
    const shown = found.slice(0, MOST);
    const note = shown.length < all ? `${shown.length} of ${all} are shown.` : "The surest first.";
    view(`Labelled ${classes[label]}, predicted ${classes[predicted]}: ${all}`, shown, note);
  });
}

/* One split's answers at a time. */

const choice = byId("split-choice");
if (choice) {
  const choose = () => {
    const split = choice.querySelector("input:checked").value;
    for (const part of document.querySelectorAll(".answers")) part.hidden = part.dataset.split !== split;
  };
  choice.hidden = false;
  choice.addEventListener("change", choose);
  choose();
}

/* Tables sort by a column; what is unknown stays at the end. */

const collator = new Intl.Collator(undefined, { numeric: true });

function sort(table, header, kind) {
  const column = [...header.parentElement.children].indexOf(header);
  const before = header.getAttribute("aria-sort");
  const down = before ? before === "ascending" : kind === "number";
  const value = (row) => {
    const cell = row.children[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    if (kind === "text") return text;
    return text === "" || Number.isNaN(Number.parseFloat(text)) ? null : Number.parseFloat(text);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return (kind === "text" ? collator.compare(a, b) : a - b) * (down ? -1 : 1);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    sort(button.closest("table"), button.closest("th"), button.dataset.sort);
  });
}
