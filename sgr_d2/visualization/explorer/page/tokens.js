// All tokens, and one token over all images: what does token 17 mean?
"use strict";

(() => {
  const { el, state, percent, swatch, chip, css } = explorer;

  // Draw what is scrolled into sight, and nothing else.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      entry.target.draw();
    }
  }, { rootMargin: "300px" });

  // The image with the region lit, relative to the token's highest probability, zoomed in where the region is small.
  function tile(entry, token, highest) {
    const info = explorer.index.images[entry.image];
    const canvas = el("canvas");
    const inner = el("div", { class: "zoom" },
      el("img", { src: `photos/${info.file}_small.webp`, alt: "", loading: "lazy", decoding: "async" }), el("div", { class: "clip" }, canvas));
    const root = el("div", { class: "tile", style: `--ratio:${info.size[0] / info.size[1]}` }, inner);
    const { u, v, spread } = explorer.centre(entry);
    const zoom = Math.min(3, Math.max(1, 0.14 / spread));
    const origin = (at) => `${100 * Math.min(1, Math.max(0, (at * zoom - 0.5) / (zoom - 1 || 1)))}%`;
    if (zoom > 1.15) inner.style.cssText = `transform:scale(${zoom});transform-origin:${origin(u)} ${origin(v)}`;
    root.draw = () => explorer.paintTile(canvas, entry, explorer.tokenColor(token), highest);
    seen.observe(root);
    return root;
  }

  const highestOf = (entries) => entries.reduce((most, { map }) => map.reduce((a, b) => Math.max(a, b), most), 1);

  function meaning(run, token) {
    const label = run.means[token];
    return label < 0 ? "never active" : `${explorer.className(label)} ${percent(run.purity[token])}`;
  }

  const SORTS = {
    class: ["Class", null],
    number: ["Number", (run, k) => k],
    purity: ["Purity", (run, k) => -run.purity[k]],
    active: ["Activity", (run, k) => -run.active[k]],
    cover: ["Cover", (run, k) => -run.cover[k]],
  };

  explorer.views.tokens = () => {
    const run = explorer.run();
    if (!run.tokens) return [el("p", { class: "note" }, `${run.name} has no tokens.`)];
    const key = SORTS[state.tokenSort][1];
    let order = explorer.orderedTokens(run);
    const idle = run.tokens - order.length;
    if (key) order = order.map((k) => [key(run, k), k]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, k]) => k);
    const bar = el("div", { class: "bar" },
      el("span", {}, "Sort by"),
      explorer.segments("Sort by", Object.entries(SORTS).map(([value, [name]]) => [value, name]), state.tokenSort, (value) => { state.tokenSort = value; explorer.render(); }),
      el("span", { class: "note" }, `${order.length} tokens are active somewhere${idle ? `, ${idle} nowhere` : ""}`));
    return [
      el("p", { class: "lead" }, "Each token with the image in which its region is largest, and the classes that it lies on, over all images."), bar,
      el("ul", { class: "gallery token-gallery" }, order.map((k) => el("li", {}, tokenCard(run, k)))),
    ];
  };

  function tokenCard(run, token) {
    const frame = el("div", { class: "tile empty", style: "--ratio:1.333" });
    frame.draw = async () => {
      const entries = await explorer.token(run.number, token);
      if (entries.length) frame.replaceWith(tile(entries[0], token, highestOf(entries)));
    };
    seen.observe(frame);
    return el("a", { href: `#/token/${token}`, class: "card", "data-token": token }, frame,
      el("span", { class: "name" }, chip(token), meaning(run, token)), stacked(run, token),
      el("span", { class: "figure" }, `active in ${percent(run.active[token])} · covers ${percent(run.cover[token], 1)}`));
  }

  const histogram = (run, token) => explorer.index.classes
    .map((_, label) => ({ label, share: run.histogram[token][label] }))
    .sort((a, b) => b.share - a.share);

  const stacked = (run, token) => el("span", { class: "stacked", "aria-hidden": "true" },
    histogram(run, token).filter(({ share }) => share > 0.01).map(({ label, share }) => el("span", { style: `flex:${share};background:${css(explorer.classColor(label))}` })));

  explorer.views.token = (number) => {
    const run = explorer.run();
    const token = Number(number);
    if (!(token < run.tokens)) return [el("p", { class: "note" }, `${run.name} has no token ${number}.`)];
    const order = explorer.orderedTokens(run);
    const step = (by) => { location.hash = `#/token/${order[(order.indexOf(token) + by + order.length) % order.length]}`; };
    explorer.keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Escape: () => { location.hash = "#/tokens"; } };
    const gallery = el("ul", { class: "gallery tiles", "aria-label": `Token ${token} in all images` });
    const count = el("span", { class: "note" });
    explorer.token(run.number, token).then((entries) => {
      count.textContent = entries.length ? `in ${entries.length} of ${explorer.index.images.length} images, largest first` : "in no image";
      const highest = highestOf(entries);
      if (highest < 200) count.textContent += `; brightness is relative to its highest probability, ${percent(highest / 255)}`;
      gallery.append(...entries.map((entry) => el("li", {}, el("a", { href: `#/image/${entry.image}`, class: "card" }, tile(entry, token, highest),
        el("span", { class: "figure" }, swatch(explorer.classColor(entry.label)), `${explorer.className(entry.label)}${entry.label < 0 ? "" : ` ${percent(entry.share)}`} · covers ${percent(entry.cover, 1)}`)))));
      gallery.dataset.ready = "true";
    }).catch(explorer.fail);
    const known = run.active[token] > 0;
    return [
      el("div", { class: "bar" },
        el("button", { type: "button", "aria-label": "Previous token", title: "Previous token of the class order (←)", onclick: () => step(-1) }, "←"),
        el("button", { type: "button", "aria-label": "Next token", title: "Next token (→)", onclick: () => step(1) }, "→"),
        el("h2", {}, chip(token), ` Token ${token}: ${meaning(run, token)}`)),
      el("div", { class: "facts" },
        el("section", {}, el("h3", {}, "What its region lies on"), known ? bars(run, token) : el("p", { class: "note" }, "It is active in no image.")),
        el("section", {}, el("h3", {}, "Figures"), facts(run, token)),
        el("section", {}, el("h3", {}, "Nearest tokens"), el("p", { class: "note" }, "Cosine of the mean token vectors."), links(run, run.nearest[token].map(([k, cosine]) => [k, cosine.toFixed(2)]))),
        run.attention && el("section", {}, el("h3", {}, "Attends to"), links(run, strongest(run, token, (k) => explorer.attentionOf(run, token, k)))),
        run.attention && el("section", {}, el("h3", {}, "Attended by"), links(run, strongest(run, token, (k) => explorer.attentionOf(run, k, token))))),
      el("div", { class: "bar" }, el("h3", {}, `Token ${token} in all images`), count), gallery,
    ];
  };

  const strongest = (run, token, weight) => explorer.orderedTokens(run).filter((k) => k !== token)
    .map((k) => [k, weight(k)]).sort((a, b) => b[1] - a[1]).slice(0, 6).map(([k, w]) => [k, percent(w, 1)]);

  function bars(run, token) {
    const shown = histogram(run, token).filter(({ share }, i) => i < 8 && share > 0.002);
    return el("ul", { class: "histogram" }, shown.map(({ label, share }) => el("li", {},
      el("span", { class: "class" }, explorer.className(label)),
      el("span", { class: "meter" }, el("span", { style: `width:${100 * share}%;background:${css(explorer.classColor(label))}` })),
      el("span", { class: "value" }, percent(share, 1)))));
  }

  function facts(run, token) {
    const entropy = -histogram(run, token).reduce((sum, { share }) => sum + (share > 0 ? share * Math.log(share) : 0), 0);
    const entries = [["Purity", percent(run.purity[token]), "Share of its main class"], ["Class entropy", `${explorer.number(entropy)} nats`, "Of the mean histogram on the left"],
      ["Active in", percent(run.active[token]), "Share of the images"], ["Covers", percent(run.cover[token], 1), "Mean share of an image"]];
    return el("dl", { class: "figures" }, entries.map(([name, value, text]) => el("div", { title: text }, el("dt", {}, name), el("dd", {}, value))));
  }

  const links = (run, entries) => el("ol", { class: "links" }, entries.map(([k, value]) => el("li", {},
    el("a", { href: `#/token/${k}`, class: "link" }, chip(k), el("span", {}, run.means[k] < 0 ? "" : explorer.className(run.means[k])), el("span", { class: "value" }, value)))));
})();
