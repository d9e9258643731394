// Two matrices: tokens against classes, and tokens against tokens.
"use strict";

(() => {
  const { el, state, percent, css } = explorer;
  // Dark to light, even in lightness, and the same to colour-blind readers.
  const STOPS = [[0, 32, 76], [49, 70, 107], [102, 105, 112], [150, 142, 118], [205, 184, 96], [255, 233, 69]];

  function heat(value) {
    const position = Math.min(1, Math.max(0, value)) * (STOPS.length - 1);
    const low = Math.min(STOPS.length - 2, Math.floor(position));
    return STOPS[low].map((c, i) => c + (STOPS[low + 1][i] - c) * (position - low));
  }

  const cut = (context, text, width) => {
    if (context.measureText(text).width <= width) return text;
    while (text && context.measureText(`${text}…`).width > width) text = text.slice(0, -1);
    return `${text}…`;
  };

  // rows, columns: [{text, color, token?}]; value(r, c) in 0..1 of the scale; describe(r, c) -> text; pick(r, c).
  function createMatrix({ rows, columns, value, describe, pick, name, square }) {
    const root = el("div", { class: "matrix scroll", tabindex: "0", role: "application", "aria-label": `${name}: arrow keys move, Enter opens the token` });
    const canvas = el("canvas");
    root.append(canvas);
    let cursor = null;
    let layout = null;

    function measure() {
      const available = root.clientWidth || 800;
      const left = Math.min(150, Math.max(86, available * 0.2));
      const ideal = (available - left - 8) / columns.length;
      const cell = square ? Math.min(20, Math.max(9, ideal)) : Math.min(96, Math.max(24, ideal));
      return { left, top: square ? 118 : 92, cell, line: square ? cell : 20 };
    }

    function draw() {
      layout = measure();
      const { left, top, cell, line } = layout;
      const [width, height] = [left + cell * columns.length + 70, top + line * rows.length + 4];
      // browsers refuse canvases beyond some 16 million pixels
      const scale = Math.min(2, window.devicePixelRatio || 1, Math.sqrt(16e6 / (width * height)));
      canvas.width = width * scale;
      canvas.height = height * scale;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      const context = canvas.getContext("2d");
      context.scale(scale, scale);
      const style = getComputedStyle(document.body);
      const ink = style.color;
      context.font = `12px ${style.fontFamily}`;
      context.textBaseline = "middle";
      const gap = cell > 12 ? 1 : 0;
      rows.forEach((row, r) => {
        context.fillStyle = css(row.color);
        context.fillRect(left - 10, top + r * line, 6, line - gap);
        context.fillStyle = ink;
        if (line >= 11 || r % 2 === 0) context.fillText(cut(context, row.text, left - 18), 2, top + (r + 0.5) * line);
        columns.forEach((_, c) => {
          context.fillStyle = css(heat(value(r, c)));
          context.fillRect(left + c * cell, top + r * line, cell - gap, line - gap);
        });
      });
      columns.forEach((column, c) => {
        context.fillStyle = css(column.color);
        context.fillRect(left + c * cell, top - 10, cell - gap, 6);
        if (cell < 11 && c % 2) return;
        context.save();
        context.translate(left + (c + 0.5) * cell, top - 15);
        context.rotate(square ? -Math.PI / 2 : -Math.PI / 5);
        context.fillStyle = ink;
        context.fillText(cut(context, column.text, square ? top - 18 : 104), 0, 0);
        context.restore();
      });
      if (cursor) {
        context.strokeStyle = "#e8590c";
        context.lineWidth = 2;
        context.strokeRect(left + cursor[1] * cell - 1, top + cursor[0] * line - 1, cell + 1 - gap, line + 1 - gap);
      }
    }

    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const [r, c] = [Math.floor((y - layout.top) / layout.line), Math.floor((x - layout.left) / layout.cell)];
      return r >= 0 && r < rows.length && c < columns.length && x >= 0 ? [r, Math.max(-1, c)] : null;
    };
    const tell = (cell, x, y) => explorer.tip(cell && cell[1] >= 0 ? describe(...cell) : null, x, y);
    canvas.addEventListener("pointermove", (event) => tell(at(event), event.clientX, event.clientY));
    canvas.addEventListener("pointerleave", () => explorer.tip(null));
    canvas.addEventListener("click", (event) => { const cell = at(event); if (cell) pick(...cell); });
    root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (step && rows.length) {
        const [r, c] = cursor ?? [0, 0];
        cursor = cursor ? [Math.min(rows.length - 1, Math.max(0, r + step[0])), Math.min(columns.length - 1, Math.max(0, c + step[1]))] : [0, 0];
        draw();
        const box = canvas.getBoundingClientRect();
        const y = box.top + layout.top + cursor[0] * layout.line;
        if (y < 60 || y > window.innerHeight - 60) window.scrollBy(0, y - window.innerHeight / 2);
        tell(cursor, box.left + layout.left + (cursor[1] + 1) * layout.cell, canvas.getBoundingClientRect().top + layout.top + (cursor[0] + 1) * layout.line);
        event.preventDefault();
        event.stopPropagation();
      } else if (event.key === "Enter" && cursor) {
        pick(...cursor);
      }
    });
    root.addEventListener("blur", () => { cursor = null; explorer.tip(null); draw(); });
    new ResizeObserver(() => { const next = measure(); if (!layout || next.cell !== layout.cell || next.left !== layout.left) draw(); }).observe(root);
    return root;
  }

  const scale = (low, high) => el("div", { class: "scale", "aria-hidden": "true" }, el("span", {}, low),
    el("span", { class: "ramp", style: `background:linear-gradient(to right,${STOPS.map((stop) => css(stop)).join(",")})` }), el("span", {}, high));

  const tokenLabels = (run, order) => order.map((k) => ({ text: `${k} ${explorer.className(run.means[k])}`, color: explorer.classColor(run.means[k]), token: k }));
  const without = (run) => [el("p", { class: "note" }, `${run.name} has no tokens, or none that is active.`)];

  explorer.views.heatmap = () => {
    const run = explorer.run();
    const order = run.tokens ? explorer.orderedTokens(run) : [];
    if (!order.length) return without(run);
    const { classes } = explorer.index;
    const share = (r, c) => run.histogram[order[r]][c];
    const used = classes.map((_, c) => c).filter((c) => order.some((_, r) => share(r, c) > 0));
    const matrix = createMatrix({
      name: "Tokens against classes", rows: tokenLabels(run, order),
      columns: used.map((c) => ({ text: classes[c], color: explorer.classColor(c) })),
      value: (r, c) => share(r, used[c]),
      describe: (r, c) => `Token ${order[r]}: ${percent(share(r, used[c]), 1)} of its mass lies on ${classes[used[c]]}`,
      pick: (r) => { location.hash = `#/token/${order[r]}`; },
    });
    return [el("p", { class: "lead" }, `Where the region of each token lies${explorer.index.hasTruth ? "" : " (by the prediction)"}, mean over the images in which it is active. Rows add up to 100 %. Click a row to see its token.`), scale("0 %", "100 %"), matrix];
  };

  explorer.views.attention = () => {
    const run = explorer.run();
    const order = run.tokens && run.attention ? explorer.orderedTokens(run) : [];
    if (!order.length) return run.tokens ? [el("p", { class: "note" }, "The encoder of this run has no layers (MODEL.SGR.ENCODER_LAYERS: 0): its tokens do not attend to each other.")] : without(run);
    if (state.layerOfAttention >= run.attention.layers) state.layerOfAttention = -1;
    const weight = (r, c) => explorer.attentionOf(run, order[r], order[c], state.layerOfAttention);
    let most = 1e-9;
    order.forEach((_, r) => order.forEach((_, c) => { most = Math.max(most, weight(r, c)); }));
    const labels = tokenLabels(run, order);
    const matrix = createMatrix({
      name: "Attention between tokens", rows: labels, columns: labels, square: true,
      value: (r, c) => Math.sqrt(weight(r, c) / most),
      describe: (r, c) => `Token ${order[r]} (${explorer.className(run.means[order[r]])}) gives ${percent(weight(r, c), 1)} of its attention to token ${order[c]} (${explorer.className(run.means[order[c]])})`,
      pick: (r, c) => { location.hash = `#/token/${order[c < 0 ? r : c]}`; },
    });
    const layers = [[-1, "Mean"], ...Array.from({ length: run.attention.layers }, (_, n) => [n, `Layer ${n + 1}`])];
    return [
      el("p", { class: "lead" }, "Who reasons with whom: each row is a token and shows how it shares its attention out over the tokens of the columns, mean over images and heads. Rows add up to 100 %, tokens that are never active included. Sorted by class."),
      el("div", { class: "bar" }, explorer.segments("Layer of the encoder", layers, state.layerOfAttention, (layer) => { state.layerOfAttention = layer; explorer.render(); }), scale("0 %", percent(most, 1))), matrix,
    ];
  };
})();
