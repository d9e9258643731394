// Data, colours and small helpers, shared by all views.
"use strict";

const explorer = (() => {
  const waiting = new Map(); // key -> {promise, resolve}
  const recent = []; // keys of images and tokens, oldest first, so that memory stays bounded
  const KEPT = 400;

  // Pages opened from disk may not fetch files, but may load scripts: each calls receive(key, content).
  function receive(key, content) {
    waiting.get(key)?.resolve(content);
  }

  function load(key) {
    if (!waiting.has(key)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => {
        entry.resolve = resolve;
        const script = document.createElement("script");
        script.src = `data/${key}.js`;
        script.onerror = () => {
          waiting.delete(key);
          reject(new Error(`The file data/${key}.js is missing. Copy the whole folder, not the page alone.`));
        };
        script.onload = () => script.remove();
        waiting.set(key, entry);
        document.head.append(script);
      });
      recent.push(key);
      if (recent.length > KEPT) waiting.delete(recent.shift());
    }
    return waiting.get(key).promise;
  }

  // The pixels of a data URL: {width, height, bytes}, bytes in RGBA.
  async function pixels(url) {
    const picture = new Image();
    picture.src = url;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return { width: canvas.width, height: canvas.height, bytes: context.getImageData(0, 0, canvas.width, canvas.height).data };
  }

  // Cut a picture of many grey maps into one byte array a map.
  async function tiles(url, columns, height, width, number) {
    const sheet = await pixels(url);
    return Array.from({ length: number }, (_, index) => {
      const top = Math.floor(index / columns) * height;
      const left = (index % columns) * width;
      const map = new Uint8Array(height * width);
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) map[y * width + x] = sheet.bytes[4 * ((top + y) * sheet.width + left + x)];
      return map;
    });
  }

  // A label picture as one number a pixel; -1 where there is no class.
  async function labels(url) {
    const picture = await pixels(url);
    const values = new Int32Array(picture.width * picture.height);
    for (let i = 0; i < values.length; i++) {
      const value = picture.bytes[4 * i] + 256 * picture.bytes[4 * i + 1];
      values[i] = value === 0xffff ? -1 : value;
    }
    return { width: picture.width, height: picture.height, values };
  }

  function decodeMatrix(matrix) {
    const text = atob(matrix.bytes);
    return Float64Array.from(text, (c) => (c.charCodeAt(0) / 255) ** 2 * matrix.max);
  }

  // Everything about one image under one run, decoded.
  const decoded = new Map();
  async function image(run, index) {
    const key = `${run}/${index}`;
    if (!decoded.has(key)) {
      decoded.set(key, decodeImage(run, index));
      if (decoded.size > 12) decoded.delete(decoded.keys().next().value);
    }
    return decoded.get(key);
  }

  async function decodeImage(run, index) {
    const info = self.index.images[index];
    const data = await load(`run${run}/${info.file}`);
    const [prediction, truth] = await Promise.all([
      labels(data.prediction),
      info.truth ? load(`truth/${info.file}`).then(labels) : null,
    ]);
    if (!data.tokens) return { prediction, truth, tokens: [], maps: [] };
    const [height, width] = data.grid;
    const maps = await tiles(data.regions, data.columns, height, width, data.tokens.length);
    return {
      prediction,
      truth,
      maps,
      grid: data.grid,
      extent: data.extent,
      tokens: data.tokens.map(([token, cover, label, share, active]) => ({ token, cover, label, share, active })),
      attention: data.attention ? decodeMatrix(data.attention) : null,
    };
  }

  async function token(run, number) {
    const data = await load(`run${run}/token${number}`);
    const [height, width] = data.tile;
    const maps = data.images.length ? await tiles(data.regions, data.columns, height, width, data.images.length) : [];
    return data.images.map(([image, cover, label, share, rows, columns, rowExtent, columnExtent], i) => ({
      image, cover, label, share, rows, columns, extent: [rowExtent, columnExtent], stride: width, map: maps[i],
    }));
  }

  // A run with its attention decoded, once.
  const decodedRuns = new Map();
  function run(number = self.state.run) {
    if (!decodedRuns.has(number)) {
      const content = self.index.runs[number];
      const attention = content.attention ? decodeMatrix(content.attention) : null;
      decodedRuns.set(number, { ...content, number, attentionValues: attention });
    }
    return decodedRuns.get(number);
  }

  const classColor = (label) =>
    label < 0 ? [226, 226, 226] : (self.state.clear ? self.index.clearColors : self.index.classColors)[label];
  const tokenColor = (token) => self.index.tokenColors[token % self.index.tokenColors.length];
  const css = (color, alpha = 1) => `rgb(${color[0]} ${color[1]} ${color[2]} / ${alpha})`;
  const className = (label) => (label < 0 ? "no label" : self.index.classes[label]);
  const percent = (value, digits = 0) => (value == null ? "–" : `${(100 * value).toFixed(digits)}\u00a0%`);
  const number = (value, digits = 2) => (value == null ? "–" : value.toFixed(digits));

  // Mean attention of token i to token j, over all layers or in one of them.
  function attentionOf(content, i, j, layer = -1) {
    const size = content.tokens;
    const at = (n) => content.attentionValues[(n * size + i) * size + j];
    if (layer >= 0) return at(layer);
    let sum = 0;
    for (let n = 0; n < content.attention.layers; n++) sum += at(n);
    return sum / content.attention.layers;
  }

  // Tokens that are active somewhere, grouped by their main class, purest first.
  function orderedTokens(content) {
    return Array.from({ length: content.tokens }, (_, k) => k)
      .filter((k) => content.active[k] > 0)
      .sort((a, b) => content.means[a] - content.means[b] || content.purity[b] - content.purity[a] || a - b);
  }

  // el("button", {class: "x", onclick: f, "aria-label": "y"}, child, "text", ...)
  function el(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value == null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") element.style.cssText = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child != null && child !== false));
    return element;
  }

  // A token's number on its colour, in the ink that is read better on it.
  const luminance = (color) => color.reduce((sum, c, i) => sum + [0.2126, 0.7152, 0.0722][i] * (c / 255) ** 2.2, 0);
  const ink = (color) => (luminance(color) > 0.18 ? "#0c0e16" : "#fff");
  const chip = (token) => el("span", { class: "chip", style: `background:${css(tokenColor(token))};color:${ink(tokenColor(token))}` }, String(token));
  const swatch = (color) => el("span", { class: "swatch", style: `background:${css(color)}`, "aria-hidden": "true" });

  function segments(label, choices, chosen, choose) {
    return el(
      "div", { class: "segments", role: "group", "aria-label": label },
      choices.map(([value, text, title]) =>
        el("button", { type: "button", "aria-pressed": String(value === chosen), title, "data-value": value, onclick: () => choose(value) }, text)),
    );
  }

  // Figures: key, short name, which way is better (0: neither), and a sentence.
  const FIGURES = [
    ["mIoU", "mIoU", 1, "Mean intersection over union of the classes, in percent."],
    ["pACC", "Pixel acc.", 1, "Share of labelled pixels whose class is right, in percent."],
    ["S_C", "S_C", -1, "Mean entropy of the classes under a token, nats. Low: each token means one class."],
    ["S_I", "S_I", -1, "Mean entropy of the components (objects) under a token, nats. Low: each token means one object."],
    ["D_C", "D_C", 1, "Entropy of the classes that the tokens cover together, nats. High: the whole scene is covered."],
    ["D_I", "D_I", 1, "Entropy of the components that the tokens cover together, nats. High: all objects are covered."],
    ["I_C", "I_C", 1, "D_C − S_C: how much a token tells about the class, nats."],
    ["I_I", "I_I", 1, "D_I − S_I: how much a token tells about the component, nats."],
    ["active_rate", "Active", 0, "Share of the tokens that cover anything of the image."],
    ["overlap", "Overlap", -1, "Share of the regions' mass that is not in the largest region of its cell. 0: regions are disjoint."],
  ];
  const isShare = (key) => key === "active_rate" || key === "overlap";
  const figure = (key, value) =>
    value == null ? "–" : isShare(key) ? percent(value) : number(value, key === "mIoU" || key === "pACC" ? 1 : 3);
  const figuresOf = (runs) => FIGURES.filter(([key]) => runs.some((content) => content.figures[key] != null));

  const self = {
    receive, load, image, token, run, labels, classColor, tokenColor, css, className, percent, number, attentionOf,
    orderedTokens, el, swatch, chip, ink, segments, FIGURES, isShare, figure, figuresOf,
    index: null,
    views: {},
    state: { run: 0, clear: true, layer: "photo", compare: false, sort: "name", descending: false, list: "cards", layerOfAttention: -1, tokenSort: "class" },
  };
  return self;
})();
