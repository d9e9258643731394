// Two runs side by side: over all images, by class, by image.
"use strict";

(() => {
  const { el, state, swatch } = explorer;

  // What rounds to zero is neither better nor worse.
  const shown = (difference, digits) => (Math.abs(difference) < 0.5 * 10 ** -digits ? 0 : difference);
  const sign = (difference, digits) => `${difference > 0 ? "+" : difference < 0 ? "−" : "±"}${Math.abs(difference).toFixed(digits)}`;

  function difference(key, better, a, b) {
    if (a == null || b == null) return el("td", { class: "difference" }, "–");
    const scale = explorer.isShare(key) ? 100 : 1;
    const digits = scale === 100 || key === "mIoU" || key === "pACC" || key === "IoU" ? 1 : 3;
    const value = shown(scale * (b - a), digits);
    const verdict = !better || value === 0 ? "" : value * better > 0 ? "gain" : "loss";
    const unit = scale === 100 ? " %" : "";
    return el("td", { class: `difference ${verdict}` }, sign(value, digits) + unit, verdict && el("span", { class: "verdict" }, verdict === "gain" ? " better" : " worse"));
  }

  const head = (first, runs) => el("thead", {}, el("tr", {}, el("th", { scope: "col" }, first), runs.map((run) => el("th", { scope: "col" }, run.name)), el("th", { scope: "col" }, "Second − first")));

  explorer.views.compare = () => {
    const runs = explorer.index.runs.slice(0, 2).map((_, i) => explorer.run(i));
    if (runs.length < 2) return [el("p", { class: "note" }, "This folder holds one run. Write it with --compare to see two side by side.")];
    const [a, b] = runs;
    const figures = explorer.figuresOf(runs);
    const overall = el("table", { class: "plain" }, head("All images", runs), el("tbody", {}, figures.map(([key, name, better, text]) =>
      el("tr", { title: text }, el("th", { scope: "row" }, name, better ? el("span", { class: "better" }, better > 0 ? " ↑" : " ↓") : ""), runs.map((run) => el("td", {}, explorer.figure(key, run.figures[key]))), difference(key, better, a.figures[key], b.figures[key])))));
    const classes = explorer.index.classes.map((name, c) => [name, c]).filter(([, c]) => a.classIou[c] != null && b.classIou[c] != null);
    const byClass = classes.length ? el("table", { class: "plain" }, head("IoU of", runs), el("tbody", {}, classes.map(([name, c]) =>
      el("tr", {}, el("th", { scope: "row" }, swatch(explorer.classColor(c)), name), runs.map((run) => el("td", {}, explorer.number(run.classIou[c], 1))), difference("IoU", 1, a.classIou[c], b.classIou[c]))))) : "";
    return [
      el("p", { class: "lead" }, "Arrows tell which way is better. Token numbers of two runs have nothing to do with each other: compare what tokens mean, not their numbers."),
      el("div", { class: "facts" }, runs.map((run) => el("section", {}, el("h3", {}, run.name), el("p", { class: "note" }, run.note, run.tokens ? `${run.note ? ", " : ""}${run.tokens} tokens` : `${run.note ? ", " : ""}no tokens`)))),
      el("div", { class: "pair" }, el("div", { class: "scroll" }, overall), el("div", { class: "scroll" }, byClass)),
      byImage(runs, figures),
    ];
  };

  const sorting = { key: "difference", descending: true };

  function byImage(runs, figures) {
    const shared = figures.filter(([key]) => runs.every((run) => run.images.some((entry) => entry[key] != null)));
    if (!shared.length) return "";
    if (!shared.some(([key]) => key === state.compareFigure)) state.compareFigure = shared[0][0];
    const key = state.compareFigure;
    const [, name, better] = shared.find((entry) => entry[0] === key);
    const rows = explorer.index.images.map((info, i) => ({ i, name: info.name, first: runs[0].images[i][key], second: runs[1].images[i][key] }))
      .map((row) => ({ ...row, difference: row.first == null || row.second == null ? null : row.second - row.first }));
    const value = (row) => row[sorting.key];
    rows.sort((x, y) => {
      if (value(x) == null || value(y) == null) return (value(x) == null) - (value(y) == null) || x.i - y.i;
      const order = typeof value(x) === "string" ? value(x).localeCompare(value(y), undefined, { numeric: true }) : value(x) - value(y);
      return (sorting.descending ? -order : order) || x.i - y.i;
    });
    const heads = [["name", "Image"], ["first", runs[0].name], ["second", runs[1].name], ["difference", "Second − first"]].map(([column, text]) =>
      el("th", { scope: "col", "aria-sort": column === sorting.key ? (sorting.descending ? "descending" : "ascending") : "none" }, el("button", {
        type: "button", "data-sort": column,
        onclick: () => { sorting.descending = sorting.key === column ? !sorting.descending : column !== "name"; sorting.key = column; explorer.render(); },
      }, text, el("span", { "aria-hidden": "true" }, column === sorting.key ? (sorting.descending ? " ↓" : " ↑") : ""))));
    const body = rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("a", { href: `#/image/${row.i}`, onclick: () => { state.compare = true; } }, row.name)),
      el("td", {}, explorer.figure(key, row.first)), el("td", {}, explorer.figure(key, row.second)), difference(key, better, row.first, row.second)));
    return el("section", {},
      el("div", { class: "bar" }, el("h3", {}, "Image by image"),
        explorer.segments("Figure", shared.map(([figure, text]) => [figure, text]), key, (figure) => { state.compareFigure = figure; explorer.render(); })),
      el("div", { class: "scroll" }, el("table", { class: "sortable", "aria-label": `${name} by image` }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body))));
  }
})();
