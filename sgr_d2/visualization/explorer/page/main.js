// Start, address, keys.
"use strict";

(() => {
  const { el, state } = explorer;
  const main = document.getElementById("main");
  const tip = document.getElementById("tip");
  const TABS = [["images", "Images", "i"], ["tokens", "Tokens", "k"], ["heatmap", "Heat map", "h"], ["attention", "Attention", "a"], ["compare", "Compare", "m"]];
  const PARENT = { image: "images", token: "tokens" };

  explorer.tip = (text, x = 0, y = 0) => {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    tip.style.left = `${Math.max(8, Math.min(x + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > window.innerHeight ? y - tip.offsetHeight - 12 : y + 18}px`;
  };

  explorer.fail = (error) => main.replaceChildren(el("p", { class: "note warn", role: "alert" }, error.message));

  const place = () => {
    const [view, argument] = location.hash.replace(/^#\//, "").split("/");
    return explorer.views[view] ? [view, argument] : ["images"];
  };

  let shown = "";
  explorer.render = () => {
    const [view, argument] = place();
    const focused = document.activeElement?.closest("button, select, th")?.outerHTML.slice(0, 90);
    explorer.keys = {};
    explorer.tip(null);
    drawHeader(PARENT[view] ?? view);
    main.replaceChildren(...explorer.views[view](argument).filter((child) => child));
    document.title = `${document.querySelector("main h2")?.textContent ?? TABS.find(([key]) => key === view)?.[1]} · ${explorer.index.title}`;
    if (shown !== location.hash) window.scrollTo(0, 0);
    else if (focused) [...main.querySelectorAll("button, select")].find((element) => element.outerHTML.startsWith(focused.slice(0, 50)))?.focus();
    shown = location.hash;
    main.dataset.view = view;
  };

  function drawHeader(tab) {
    const { index } = explorer;
    document.getElementById("title").textContent = index.title;
    document.getElementById("tabs").replaceChildren(...TABS.filter(([key]) => key !== "compare" || index.runs.length > 1).map(([key, name, letter]) =>
      el("a", { href: `#/${key}`, title: `${name} (${letter})`, "aria-current": key === tab ? "page" : null }, name)));
    const runs = document.getElementById("runs");
    runs.hidden = index.runs.length < 2;
    runs.replaceChildren(...index.runs.map((run, i) => el("button", { type: "button", title: `Show ${run.name} (r)`, "aria-pressed": String(i === state.run), onclick: () => { state.run = i; explorer.render(); } }, run.name)));
    document.getElementById("colors").setAttribute("aria-pressed", String(!state.clear));
  }

  function drawHelp() {
    const keys = [["i k h a m", "Images, tokens, heat map, attention, compare"], ["← →", "Previous, next image or token"], ["1 … 5", "Photograph, prediction, truth, errors, regions"],
      ["Shift ← → ↑ ↓", "Move over the image without a mouse (Tab to it first)"], ["Enter", "Pin the pixel; open the token of a matrix"], ["t", "Open the strongest token of the pixel"],
      ["c", "Both runs side by side"], ["r", "The other run"], ["p", "Class colours of the data set, or clear ones"], ["Esc", "Back"], ["?", "This"]];
    const dialog = document.getElementById("help");
    dialog.replaceChildren(
      el("h2", { tabindex: "-1", autofocus: true }, "Keys"), el("dl", { class: "keys" }, keys.map(([key, text]) => [el("dt", {}, key), el("dd", {}, text)]).flat()),
      el("h2", {}, "Words"), el("dl", { class: "keys" },
        el("dt", {}, "token"), el("dd", {}, "one of K vectors that describe the image; its region is the soft map it was gathered from."),
        el("dt", {}, "purity"), el("dd", {}, "the share of a region's mass that lies on its main class."),
        el("dt", {}, "active"), el("dd", {}, "its region covers enough of the image to count in the figures."),
        explorer.FIGURES.map(([, name, , text]) => [el("dt", {}, name), el("dd", {}, text)]).flat()),
      el("p", { class: "note" }, "Probabilities are rounded to 1/63 and, on fine grids, averaged over blocks of cells. Figures come from the exact regions."),
      el("form", { method: "dialog" }, el("button", {}, "Close")));
  }

  const toggleHelp = () => { const dialog = document.getElementById("help"); if (dialog.open) dialog.close(); else dialog.showModal(); };
  const toggleColors = () => { state.clear = !state.clear; explorer.render(); };

  document.getElementById("help-button").addEventListener("click", toggleHelp);
  document.getElementById("colors").addEventListener("click", toggleColors);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (document.getElementById("help").open) { if (event.key === "?") toggleHelp(); return; }
    const tab = TABS.find(([key, , letter]) => letter === event.key && (key !== "compare" || explorer.index.runs.length > 1));
    const common = {
      "?": toggleHelp, p: toggleColors, r: () => { state.run = (state.run + 1) % explorer.index.runs.length; explorer.render(); },
      ...(tab ? { [event.key]: () => { location.hash = `#/${tab[0]}`; } } : {}),
    };
    const action = explorer.keys?.[event.key] ?? common[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  window.addEventListener("hashchange", () => explorer.render());

  explorer.load("index").then((index) => {
    explorer.index = index;
    drawHelp();
    explorer.render();
    document.body.dataset.ready = "true";
  }).catch(explorer.fail);
})();
