// The gallery, as cards or as a table, and one image with its tokens.
"use strict";

(() => {
  const { el, state, percent, swatch, chip, css } = explorer;

  function sortedImages(run) {
    const { images } = explorer.index;
    const value = (i) => (state.sort === "name" ? images[i].name : run.images[i][state.sort]);
    const order = images.map((_, i) => i);
    return order.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x == null || y == null) return (x == null) - (y == null) || a - b; // undefined figures come last
      const result = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return (state.descending ? -result : result) || a - b;
    });
  }
  explorer.sortedImages = () => sortedImages(explorer.run());

  function sortBy(key) {
    state.descending = state.sort === key ? !state.descending : key !== "name";
    state.sort = key;
    explorer.render();
  }

  explorer.figureCards = (content) =>
    el("dl", { class: "figures" },
      explorer.figuresOf([content]).map(([key, name, better, text]) =>
        el("div", { title: text }, el("dt", {}, name, better ? el("span", { class: "better" }, better > 0 ? " ↑" : " ↓") : ""), el("dd", {}, explorer.figure(key, content.figures[key])))));

  explorer.views.images = () => {
    const run = explorer.run();
    const figures = explorer.FIGURES.filter(([key]) => run.images.some((figures) => figures[key] != null));
    if (state.sort !== "name" && !figures.some(([key]) => key === state.sort)) state.sort = "name";
    const order = sortedImages(run);
    const select = el("select", { id: "sort", onchange: (event) => { state.sort = event.target.value; explorer.render(); } },
      [["name", "Name"], ...figures].map(([key, name]) => el("option", { value: key, selected: key === state.sort }, name)));
    const bar = el("div", { class: "bar" },
      el("label", {}, "Sort by ", select),
      el("button", { type: "button", id: "direction", title: "Turn the order round", onclick: () => { state.descending = !state.descending; explorer.render(); } }, state.descending ? "↓ descending" : "↑ ascending"),
      explorer.segments("List as", [["cards", "Cards"], ["table", "Table"]], state.list, (list) => { state.list = list; explorer.render(); }),
      el("span", { class: "note" }, `${order.length} images`));
    const list = state.list === "cards" ? cards(run, order) : table(run, order, figures);
    const source = explorer.index.hasTruth ? null : el("p", { class: "note warn" }, "There is no truth for these images: what a token means is measured against the prediction.");
    return [explorer.figureCards(run), source, bar, list];
  };

  function cards(run, order) {
    return el("ul", { class: "gallery" }, order.map((i) => {
      const info = explorer.index.images[i];
      const shown = state.sort === "name" ? ["mIoU", "S_C"] : [state.sort];
      const text = shown.filter((key) => run.images[i][key] != null).map((key) => `${key.replace("_rate", "")} ${explorer.figure(key, run.images[i][key])}`).join(" · ");
      return el("li", {}, el("a", { href: `#/image/${i}`, class: "card" },
        el("img", { src: `photos/${info.file}_small.webp`, alt: "", loading: "lazy", decoding: "async", style: `aspect-ratio:${info.size[0]}/${info.size[1]}` }),
        el("span", { class: "name" }, info.name), el("span", { class: "figure" }, text || "\u00a0")));
    }));
  }

  function table(run, order, figures) {
    const head = [["name", "Image", 0, ""], ...figures].map(([key, name, , text]) =>
      el("th", { scope: "col", "aria-sort": key === state.sort ? (state.descending ? "descending" : "ascending") : "none", title: text },
        el("button", { type: "button", "data-sort": key, onclick: () => sortBy(key) }, name, el("span", { "aria-hidden": "true" }, key === state.sort ? (state.descending ? " ↓" : " ↑") : ""))));
    const total = el("tr", { class: "total" }, el("th", { scope: "row" }, "All images"), figures.map(([key]) => el("td", {}, explorer.figure(key, run.figures[key]))));
    const rows = order.map((i) => el("tr", {},
      el("th", { scope: "row" }, el("a", { href: `#/image/${i}` }, explorer.index.images[i].name)),
      figures.map(([key]) => el("td", {}, explorer.figure(key, run.images[i][key])))));
    return el("div", { class: "scroll" }, el("table", { class: "sortable" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, total, rows)));
  }

  const LAYERS = [["photo", "Photo"], ["prediction", "Prediction"], ["truth", "Truth"], ["errors", "Errors"], ["regions", "Regions"]];

  explorer.views.image = (number) => {
    const { images, runs } = explorer.index;
    const info = images[number];
    if (!info) return [el("p", { class: "note" }, "There is no such image.")];
    const layers = LAYERS.filter(([layer]) => info.truth || (layer !== "truth" && layer !== "errors"));
    if (!layers.some(([layer]) => layer === state.layer)) state.layer = "photo";
    const shown = state.compare && runs.length > 1 ? runs.map((_, i) => i) : [state.run];
    const order = explorer.sortedImages();
    const position = order.indexOf(Number(number));
    const step = (by) => { location.hash = `#/image/${order[(position + by + order.length) % order.length]}`; };
    const stages = [];
    const panels = [];
    let pinned = null;
    const probe = (u, v) => { if (!pinned) show(u, v); };
    const pin = (u, v) => {
      pinned = pinned && Math.hypot(pinned[0] - u, pinned[1] - v) < 0.02 ? null : [u, v];
      show(...(pinned ?? [u, v]));
    };
    const show = (u, v) => stages.forEach((stage, i) => {
      const tokens = u == null ? [] : stage.tokensAt(u, v);
      stage.mark(pinned || i > 0 || stages.length > 1 ? u : null, v);
      stage.highlight(tokens.slice(0, 6).map((entry) => entry.token));
      const attended = stage.showAttention(pinned && tokens.length ? tokens[0].token : null);
      panels[i].replaceChildren(...panel(stage, shown[i], number, u == null ? null : { tokens, classes: stage.classAt(u, v), attended }, pinned));
    });
    for (const run of shown) {
      const stage = explorer.createStage(number, run, { probe, pin });
      stages.push(stage);
      panels.push(el("section", { class: "panel", "aria-live": "polite" }));
      stage.setLayer(state.layer);
    }
    const ready = Promise.all(stages.map((stage) => stage.ready)).then(() => show(null));
    ready.catch(explorer.fail);
    const choose = (layer) => {
      state.layer = layer;
      stages.forEach((stage) => stage.setLayer(layer));
      bar.querySelectorAll("[data-value]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === layer)));
    };
    explorer.keys = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1),
      Escape: () => { if (pinned) { pinned = null; show(null); } else location.hash = "#/images"; },
      c: () => { if (runs.length > 1) { state.compare = !state.compare; explorer.render(); } },
      t: () => { const [token] = stages[0].probed ? stages[0].tokensAt(...stages[0].probed) : stages[0].data.tokens; if (token) location.hash = `#/token/${token.token}`; },
      ...Object.fromEntries(layers.map(([layer], i) => [String(i + 1), () => choose(layer)])),
    };
    const bar = el("div", { class: "bar" },
      el("button", { type: "button", "aria-label": "Previous image", title: "Previous image (←)", onclick: () => step(-1) }, "←"),
      el("button", { type: "button", "aria-label": "Next image", title: "Next image (→)", onclick: () => step(1) }, "→"),
      el("h2", {}, info.name),
      explorer.segments("Layer", layers.map(([layer, name], i) => [layer, name, `${name} (${i + 1})`]), state.layer, choose),
      runs.length > 1 && el("button", { type: "button", id: "side", "aria-pressed": String(shown.length > 1), title: "Both runs side by side (c)", onclick: () => { state.compare = !state.compare; explorer.render(); } }, "Side by side"));
    const columns = shown.map((run, i) => el("div", { class: "column" },
      shown.length > 1 && el("h3", {}, runs[run].name), el("div", { class: "frame" }, stages[i].root, legend(stages[i])), panels[i]));
    return [bar, el("div", { class: shown.length > 1 ? "columns both" : "columns" }, columns)];
  };

  // The classes that the image shows, filled in when it is there.
  function legend(stage) {
    const list = el("ul", { class: "legend", "aria-label": "Classes" });
    stage.ready.then((data) => {
      const seen = new Set([...new Set(data.prediction.values), ...new Set(data.truth?.values ?? [])]);
      list.append(...[...seen].filter((label) => label >= 0).sort((a, b) => a - b).map((label) => el("li", {}, swatch(explorer.classColor(label)), explorer.className(label))));
    }).catch(explorer.fail);
    return list;
  }

  function panel(stage, run, number, probed, pinned) {
    const figures = explorer.run(run).images[number];
    const shown = probed ? probed.tokens : stage.data.tokens.filter((entry) => entry.active);
    const head = probed
      ? el("p", { class: "where" }, pinned ? el("b", {}, "Pinned. ") : "",
          "Prediction ", el("b", {}, explorer.className(probed.classes.prediction)),
          probed.classes.truth != null && [", truth ", el("b", {}, explorer.className(probed.classes.truth))])
      : el("p", { class: "where" }, stage.data.tokens.length ? "Point at the image to see the tokens of a pixel; click to pin it and see which tokens it attends to." : "This run has no tokens.");
    const small = explorer.FIGURES.filter(([key]) => figures[key] != null);
    return [
      head,
      el("ol", { class: "tokens", "aria-label": probed ? "Tokens of the pixel" : "Active tokens" }, shown.map((entry) => row(stage, run, entry, probed ? entry.probability : entry.cover, probed))),
      shown.length ? el("p", { class: "note" }, probed ? "Bars: probability at the pixel." : "Bars: share of the image.", " Class: where its region lies, in this image. Click a token to see it in all images.") : "",
      ...attention(run, shown, probed),
      el("dl", { class: "figures small" }, small.map(([key, name, , text]) => el("div", { title: text }, el("dt", {}, name), el("dd", {}, explorer.figure(key, figures[key]))))),
    ];
  }

  // Whom the strongest token of a pinned pixel attends to, in this image.
  function attention(run, shown, probed) {
    if (!probed?.attended.length) return [];
    return [
      el("h3", {}, "Token ", chip(shown[0].token), " attends to"),
      el("ol", { class: "links" }, probed.attended.map((entry) => el("li", {}, el("a", { href: `#/token/${entry.token}`, class: "link", onclick: () => { state.run = run; } },
        chip(entry.token), el("span", {}, explorer.className(entry.label)), el("span", { class: "value" }, percent(entry.weight, 1)))))),
    ];
  }

  function row(stage, run, entry, value, probed) {
    const light = () => { if (!probed) stage.highlight([entry.token]); };
    const dark = () => { if (!probed) stage.highlight([]); };
    return el("li", {}, el("a", {
      href: `#/token/${entry.token}`, class: "token", "data-token": entry.token, onpointerenter: light, onfocus: light, onpointerleave: dark, onblur: dark,
      onclick: () => { state.run = run; },
    },
    chip(entry.token),
    el("span", { class: "meter" }, el("span", { style: `width:${100 * Math.min(1, value)}%;background:${css(explorer.tokenColor(entry.token))}` })),
    el("span", { class: "value" }, percent(value, value < 0.1 ? 1 : 0)),
    el("span", { class: "class" }, swatch(explorer.classColor(entry.label)), `${explorer.className(entry.label)} ${entry.label < 0 ? "" : percent(entry.share)}`)));
  }
})();
