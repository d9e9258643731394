// One image with its layers: photograph, labels, regions, highlighted tokens, attention.
"use strict";

(() => {
  const { el, css } = explorer;
  const WRONG = [213, 94, 0];
  const DARK = [12, 14, 22];
  const PROBE = 0.1; // tokens at least this probable at a pixel are active there

  // Paint regions into a canvas of one pixel a cell; paint(i) gives [r, g, b, alpha 0..1] of cell i.
  function paintCells(canvas, rows, columns, extent, paint) {
    canvas.width = columns;
    canvas.height = rows;
    canvas.style.width = `${(100 * columns) / extent[1]}%`;
    canvas.style.height = `${(100 * rows) / extent[0]}%`;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i++) {
      const [r, g, b, alpha] = paint(i);
      picture.data.set([r, g, b, 255 * alpha], 4 * i);
    }
    context.putImageData(picture, 0, 0);
  }

  // A lit region: its colour where it is probable, darkness elsewhere.
  function lit(color, probability, tint = 0.5, dark = 0.58) {
    const above = tint * probability;
    const below = dark * (1 - probability) * (1 - above);
    const alpha = above + below || 1e-6;
    return [0, 1, 2].map((c) => (color[c] * above + DARK[c] * below) / alpha).concat(alpha);
  }

  // highest: the byte that counts as probability 1.
  explorer.paintTile = (canvas, entry, color, highest) => {
    paintCells(canvas, entry.rows, entry.columns, entry.extent, (i) => lit(color, entry.map[cellOf(entry, i)] / highest, 0.6, 0.5));
  };

  const cellOf = (entry, i) => Math.floor(i / entry.columns) * entry.stride + (i % entry.columns);

  // Centre (u, v) and spread of a region, all in shares of the image's sides.
  explorer.centre = (entry) => {
    let sum = 1e-9, x = 0, y = 0, square = 0;
    for (let i = 0; i < entry.rows * entry.columns; i++) {
      const weight = entry.map[cellOf(entry, i)] ** 2;
      const [u, v] = [((i % entry.columns) + 0.5) / entry.extent[1], (Math.floor(i / entry.columns) + 0.5) / entry.extent[0]];
      sum += weight; x += weight * u; y += weight * v; square += weight * (u * u + v * v);
    }
    const [u, v] = [x / sum, y / sum];
    return { u, v, spread: Math.sqrt(Math.max(1e-4, square / sum - u * u - v * v)) };
  };

  // events: probe(u, v | null), pin(u, v)
  explorer.createStage = (number, run, events) => {
    const info = explorer.index.images[number];
    const photo = el("img", { src: `photos/${info.file}.webp`, alt: info.name, draggable: "false" });
    const labelCanvas = el("canvas", { class: "label-layer" });
    const regionCanvas = el("canvas", { class: "region-layer" });
    const arcs = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    arcs.setAttribute("class", "arcs");
    arcs.setAttribute("viewBox", `0 0 ${info.size[0]} ${info.size[1]}`);
    const cross = el("div", { class: "cross", hidden: true });
    const root = el(
      "div",
      {
        class: "stage", tabindex: "0", role: "application", "data-run": run,
        "aria-label": `${info.name}: move the pointer, or Shift and arrow keys, to see the tokens of a pixel; Enter pins`,
        style: `--ratio:${info.size[0] / info.size[1]}`,
      },
      photo, labelCanvas, el("div", { class: "clip" }, regionCanvas), arcs, cross,
    );
    const stage = { root, data: null, layer: "photo", probed: null };
    stage.ready = explorer.image(run, number).then((data) => {
      stage.data = data;
      draw();
      root.dataset.ready = "true";
      return data;
    });

    stage.setLayer = (layer) => { stage.layer = layer; if (stage.data) draw(); };

    // The tokens of a pixel (u, v in 0..1), strongest first: [{...token, probability}].
    stage.tokensAt = (u, v) => {
      const { data } = stage;
      if (!data || !data.maps.length) return [];
      const cell = Math.floor(v * data.extent[0]) * data.grid[1] + Math.floor(u * data.extent[1]);
      const all = data.tokens.map((token, i) => ({ ...token, map: i, probability: data.maps[i][cell] / 255 }));
      all.sort((a, b) => b.probability - a.probability);
      return all.filter((token, rank) => token.probability >= PROBE || (rank === 0 && token.probability > 0.02));
    };

    stage.classAt = (u, v) => {
      const at = (map) => map.values[Math.floor(v * map.height) * map.width + Math.floor(u * map.width)];
      const { data } = stage;
      return data ? { prediction: at(data.prediction), truth: data.truth ? at(data.truth) : null } : null;
    };

    // Light up some tokens; none: back to the layer.
    stage.highlight = (numbers) => {
      const { data } = stage;
      if (!data) return;
      const chosen = data.tokens.map((token, i) => [token.token, i]).filter(([token]) => numbers.includes(token));
      root.dataset.highlight = chosen.map(([token]) => token).join(" ");
      if (!chosen.length) { drawRegions(); return; }
      root.classList.add("lit");
      paintCells(regionCanvas, ...data.grid, data.extent, (i) => {
        let best = 0, color = DARK;
        for (const [token, map] of chosen)
          if (data.maps[map][i] > best) { best = data.maps[map][i]; color = explorer.tokenColor(token); }
        return lit(color, best / 255);
      });
    };

    stage.mark = (u, v) => {
      cross.hidden = u == null;
      if (u != null) cross.style.cssText = `left:${100 * u}%;top:${100 * v}%`;
    };

    // Lines from a token to those it attends to most, between the centres of their regions; returns these tokens.
    stage.showAttention = (token) => {
      arcs.replaceChildren();
      const { data } = stage;
      const from = data?.tokens.findIndex((entry) => entry.token === token);
      if (token == null || !data?.attention || from < 0) return [];
      const size = Math.round(Math.sqrt(data.attention.length));
      const targets = data.tokens
        .map((entry, i) => ({ ...entry, map: i, weight: data.attention[token * size + entry.token] }))
        .filter((entry) => entry.token !== token && entry.active)
        .sort((a, b) => b.weight - a.weight).slice(0, 5);
      const start = centre(data, from);
      const unit = Math.max(...info.size) / 480;
      for (const target of targets) arc(start, centre(data, target.map), target, targets[0].weight, unit);
      knot(start, token, unit, true);
      for (const target of targets) knot(centre(data, target.map), target.token, unit, false);
      return targets;
    };

    function centre(data, map) {
      const [rows, columns] = data.grid;
      const { u, v } = explorer.centre({ rows, columns, stride: columns, extent: data.extent, map: data.maps[map] });
      return [u, v].map((at, axis) => Math.min(0.96, Math.max(0.04, at)) * info.size[axis]);
    }

    function shape(tag, attributes, text) {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (text != null) element.textContent = text;
      arcs.append(element);
      return element;
    }

    function arc([x0, y0], [x1, y1], target, most, unit) {
      const bend = 0.18;
      const [cx, cy] = [(x0 + x1) / 2 - (y1 - y0) * bend, (y0 + y1) / 2 + (x1 - x0) * bend];
      const path = `M${x0},${y0} Q${cx},${cy} ${x1},${y1}`;
      const width = unit * (1 + (4 * target.weight) / (most || 1));
      shape("path", { d: path, fill: "none", stroke: "#0c0e16", "stroke-width": width + 2 * unit, "stroke-opacity": 0.55 });
      shape("path", { d: path, fill: "none", stroke: css(explorer.tokenColor(target.token)), "stroke-width": width });
    }

    function knot([x, y], token, unit, first) {
      const radius = unit * (first ? 12 : 10);
      shape("circle", { cx: x, cy: y, r: radius, fill: css(explorer.tokenColor(token)), stroke: first ? "#fff" : "#0c0e16", "stroke-width": 2 * unit });
      shape("text", { x, y: y + unit * 3.6, "text-anchor": "middle", "font-size": unit * 10.5, "font-weight": 700, fill: explorer.ink(explorer.tokenColor(token)) }, token);
    }

    function draw() {
      drawLabels();
      drawRegions();
    }

    function drawLabels() {
      const { data, layer } = stage;
      const source = layer === "truth" ? data.truth : data.prediction;
      const shown = (layer === "prediction" || layer === "truth" || layer === "errors") && source && (layer !== "errors" || data.truth);
      labelCanvas.hidden = !shown;
      if (!shown) return;
      labelCanvas.width = source.width;
      labelCanvas.height = source.height;
      const context = labelCanvas.getContext("2d");
      const picture = context.createImageData(source.width, source.height);
      const target = new Uint32Array(picture.data.buffer);
      const pack = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
      if (layer === "errors") {
        const wrong = pack(WRONG, 235), ignored = pack([128, 128, 128], 150);
        for (let i = 0; i < target.length; i++)
          target[i] = data.truth.values[i] < 0 ? ignored : data.truth.values[i] !== data.prediction.values[i] ? wrong : 0;
      } else {
        const table = explorer.index.classes.map((_, label) => pack(explorer.classColor(label), 190));
        for (let i = 0; i < target.length; i++) target[i] = source.values[i] < 0 ? pack([226, 226, 226], 150) : table[source.values[i]];
      }
      context.putImageData(picture, 0, 0);
    }

    function drawRegions() {
      const { data, layer } = stage;
      root.classList.remove("lit");
      root.classList.toggle("owners", layer === "regions" && data.maps.length > 0);
      regionCanvas.hidden = false;
      if (layer !== "regions" || !data.maps.length) { regionCanvas.width = regionCanvas.height = 1; return; }
      paintCells(regionCanvas, ...data.grid, data.extent, (i) => {
        let best = 0, color = DARK;
        data.maps.forEach((map, n) => { if (map[i] > best) { best = map[i]; color = explorer.tokenColor(data.tokens[n].token); } });
        return [...color, (0.85 * best) / 255];
      });
    }

    const place = (event) => {
      const box = root.getBoundingClientRect();
      const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return u >= 0 && u < 1 && v >= 0 && v < 1 ? [u, v] : null;
    };
    root.addEventListener("pointermove", (event) => { const at = place(event); if (at) { stage.probed = at; events.probe(...at); } });
    root.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") events.probe(null); });
    root.addEventListener("click", (event) => { const at = place(event); if (at) { stage.probed = at; events.pin(...at); } });
    root.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step && event.shiftKey) {
        const [u, v] = stage.probed ?? [0.5, 0.5];
        stage.probed = [u + step[0] / 60, v + step[1] / 60].map((x) => Math.min(0.995, Math.max(0.005, x)));
        stage.mark(...stage.probed);
        events.probe(...stage.probed);
        event.preventDefault();
        event.stopPropagation();
      } else if (event.key === "Enter" && stage.probed) {
        events.pin(...stage.probed);
        event.stopPropagation();
      }
    });
    return stage;
  };
})();
