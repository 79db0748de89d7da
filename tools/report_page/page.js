"use strict";
(() => {
  const ROW = 28; // px, as in the style
  const SPARE = 15; // rows drawn above and below what is seen
  const data = JSON.parse(document.getElementById("data").textContent);
  const { places, orders } = data;
  const $ = (id) => document.getElementById(id);
  const matrix = $("matrix");
  const fields = ["q", "state", "at", "order", "damaged"];

  const looks = data.looks.map(([condition, mark, verdict, evidence, words]) => ({ condition, mark, verdict, evidence, words }));
  const images = data.images.map(([id, name, bytes, size, status, oldest, copies], rank) => ({
    id, name, bytes, size, status, rank,
    copies: copies.map(([place, look, ago, detail, next]) => ({ place, ...looks[look], ago, detail, next })),
    text: `${name}\n${id}`.toLowerCase(),
    oldest: oldest ?? Infinity, // seconds since the copy least recently verified was; -1 without a copy
  }));
  let shown = images;

  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function words(copy) {
    const place = places[copy.place];
    const where = `${place.host ? "on" : "in"} ${place.label}`;
    if (copy.verdict === "never") return `${where}: never verified`;
    const depth = copy.evidence === "full" ? "every byte read" : `by ${copy.evidence} only`;
    return `${where}: ${copy.words}, ${depth}, ${copy.ago}`;
  }

  const worst = ["damaged", "unknown", "never", "shallow", "intact"];

  function cell(image, place) {
    const here = image.copies.filter((copy) => copy.place === place);
    const first = places[place].first ? "first" : "";
    if (!here.length) return first ? make("td", { class: first }) : make("td");
    const kind = worst.find((one) => here.some((copy) => copy.condition === one));
    const title = here.map(words).join("\n");
    return make("td", { class: `${kind} ${first}`.trim(), title, "aria-label": title }, here.map((copy) => copy.mark).join(""));
  }

  function row(image) {
    const opener = make("button", { class: "open name", type: "button", title: `${image.name}\n${image.id}` }, `${image.name || image.id} `);
    if (!image.copies.length) opener.append(make("span", { class: "badge damaged" }, "no copy"));
    const made = make("tr", { "data-id": image.id }, make("th", { scope: "row" }, opener), make("td", { class: "size" }, image.size));
    made.append(...places.map((_, place) => cell(image, place)));
    return made;
  }

  function heading() {
    const groups = make("tr", {}, make("th", { class: "corner" }), make("th"));
    const names = make("tr", {}, make("th", { class: "corner" }, "Image"), make("th", { class: "number" }, "Size"));
    places.forEach((place, number) => {
      if (place.first) {
        const span = places.findIndex((other, at) => at > number && other.first);
        const width = (span < 0 ? places.length : span) - number;
        groups.append(make("th", { class: "group first", colspan: width, title: place.group }, place.group));
      }
      const title = place.host ? `${place.label}, ${place.state}` : place.label;
      const more = [["first", place.first], ["chosen", String(number) === $("at").value], ["dead", place.host && place.state !== "alive"]];
      const kinds = ["place", ...more.filter(([, so]) => so).map(([name]) => name)].join(" ");
      names.append(make("th", { class: kinds, title, scope: "col" }, make("span", {}, place.name)));
    });
    return make("thead", {}, groups, names);
  }

  function columns() {
    const many = places.length > 8;
    matrix.classList.toggle("many", many);
    const group = make("colgroup", {}, make("col"), make("col"), ...places.map(() => make("col")));
    [...group.children].forEach((one, number) => {
      one.style.width = number === 0 ? "17rem" : number === 1 ? "6rem" : many ? "2.6rem" : "7rem";
    });
    return group;
  }

  const body = make("tbody");
  let from = -1;

  function draw() {
    const seen = Math.ceil(matrix.clientHeight / ROW) || 40;
    const start = Math.max(0, Math.floor(matrix.scrollTop / ROW) - SPARE);
    if (start === from) return;
    from = start;
    const end = Math.min(shown.length, start + seen + 2 * SPARE);
    const gap = (rows) => {
      const made = make("tr", { class: "gap", "aria-hidden": "true" }, make("td", { colspan: places.length + 2 }));
      made.firstChild.style.height = `${rows * ROW}px`;
      return made;
    };
    body.replaceChildren(gap(start), ...shown.slice(start, end).map(row), gap(shown.length - end));
  }

  function fits(image, want) {
    if (want.q && !image.text.includes(want.q)) return false;
    if (want.damaged && !image.copies.some((copy) => copy.condition === "damaged")) return false;
    const here = want.at === "" ? image.copies : image.copies.filter((copy) => String(copy.place) === want.at);
    if (want.at !== "" && !here.length) return false;
    if (want.state === "nowhere") return !image.copies.length;
    if (want.state === "cached") return image.copies.length > 0 && image.copies.every((copy) => places[copy.place].host);
    return want.state === "" || here.some((copy) => copy.condition === want.state || (want.state !== "intact" && copy.verdict === want.state));
  }

  const by = {
    worst: (a, b) => a.rank - b.rank,
    name: (a, b) => a.name.localeCompare(b.name) || a.rank - b.rank,
    size: (a, b) => (b.bytes || 0) - (a.bytes || 0) || a.rank - b.rank,
    oldest: (a, b) => (a.oldest === b.oldest ? a.rank - b.rank : b.oldest - a.oldest),
    copies: (a, b) => a.copies.length - b.copies.length || a.rank - b.rank,
  };

  function apply() {
    const want = { q: $("q").value.trim().toLowerCase(), state: $("state").value, at: $("at").value, damaged: $("damaged").checked };
    shown = images.filter((image) => fits(image, want)).sort(by[$("order").value] || by.worst);
    $("count").textContent = `${shown.length.toLocaleString("en")} of ${data.total.toLocaleString("en")} images`
      + (images.length < data.total ? ` (the worst ${images.length.toLocaleString("en")} are in this page)` : "");
    const table = make("table", {}, columns(), heading(), body);
    matrix.replaceChildren(table, ...(shown.length ? [] : [make("p", {}, "No image is like that.")]));
    matrix.scrollTop = 0;
    from = -1;
    draw();
  }

  function remember() {
    const kept = new URLSearchParams();
    for (const id of fields) {
      const value = id === "damaged" ? ($(id).checked ? "1" : "") : id === "at" && $(id).value !== "" ? places[$(id).value].key : $(id).value;
      if (value && !(id === "order" && value === "worst")) kept.set(id, value);
    }
    history.replaceState(null, "", `#${kept}`);
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    $("q").value = kept.get("q") || "";
    $("damaged").checked = kept.get("damaged") === "1";
    const at = places.findIndex((place) => place.key === kept.get("at"));
    $("at").value = at < 0 ? "" : String(at);
    for (const id of ["state", "order"]) {
      const value = kept.get(id) || $(id).options[0].value;
      $(id).value = [...$(id).options].some((one) => one.value === value) ? value : $(id).options[0].value;
    }
    apply();
  }

  function details(image) {
    const facts = `${image.id}, ${image.status}, ${image.size}`;
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...["Where", "State", "Evidence", "Verified", "What was found, and what to do"].map((name) => make("th", {}, name)))));
    const rows = make("tbody");
    for (const copy of image.copies) {
      const said = make("td", {}, copy.detail || "");
      if (copy.next) said.append(make("br"), make("code", {}, copy.next));
      rows.append(make("tr", {},
        make("td", {}, places[copy.place].label),
        make("td", {}, make("span", { class: `badge ${copy.condition}` }, `${copy.mark} ${copy.words}`)),
        make("td", {}, copy.evidence), make("td", {}, copy.ago), said));
    }
    table.append(rows);
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => $("details").close());
    const content = image.copies.length ? table : make("p", {}, image.bytes === 0 ? "It is empty, and needs no location." : "It has no location at all: nobody can download it.");
    $("details").replaceChildren(make("h2", {}, make("span", { class: "name" }, image.name || image.id)), make("p", { class: "note" }, facts), content, close);
    $("details").showModal();
  }

  function options(id, pairs) {
    $(id).append(...pairs.map(([value, text]) => make("option", { value }, text)));
  }

  options("state", [["", "any"], ...data.states]);
  options("at", [["", "anywhere"], ...places.map((place, number) => [String(number), place.label])]);
  options("order", orders);
  $("filters").hidden = matrix.hidden = false;
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", () => { apply(); remember(); });
  $("clear").addEventListener("click", () => { history.replaceState(null, "", "#"); recall(); });
  matrix.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  matrix.addEventListener("click", (event) => {
    const id = event.target.closest("tr[data-id]")?.dataset.id;
    if (id) details(images.find((image) => image.id === id));
  });
  addEventListener("resize", () => { from = -1; draw(); });
  addEventListener("hashchange", recall);
  recall();
})();
