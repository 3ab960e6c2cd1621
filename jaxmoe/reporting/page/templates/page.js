"use strict";
(() => {
  const all = (what, inside = document) => [...inside.querySelectorAll(what)];
  const root = document.documentElement;

  // Theme: the system's, light, or dark. A file may have no storage of its own.
  const themes = ["automatic", "light", "dark"];
  const themeButton = document.querySelector("[data-theme-switch]");
  const setTheme = (theme) => {
    if (theme === "automatic") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    themeButton.textContent = `Theme: ${theme}`;
    try { localStorage.setItem("jaxmoe-theme", theme); } catch { /* it is not remembered */ }
  };
  let theme = "automatic";
  try { theme = localStorage.getItem("jaxmoe-theme") ?? theme; } catch { /* none is known */ }
  if (!themes.includes(theme)) theme = "automatic";
  setTheme(theme);
  themeButton.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
  });

  // Folding: all sections at once, open for a printer, and open where a link leads to.
  const sections = all("details.section");
  const foldButton = document.querySelector("[data-fold]");
  foldButton.addEventListener("click", () => {
    const open = !sections.some((section) => section.open);
    for (const section of sections) section.open = open;
    foldButton.textContent = open ? "Fold all" : "Unfold all";
  });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
  const openTarget = () => {
    let target = null;
    try {
      target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch { /* a lone % leads nowhere */ }
    const section = target?.closest("details");
    if (section) section.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  // Tables: a head sorts up, then down, then as it was. Pinned rows and empty cells do not move up.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const said = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    if (said === "" || said === "nan" || said === "–") return null;
    const number = Number(said.replace("−", "-"));
    return Number.isNaN(number) ? said : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  for (const table of all("table.sortable")) {
    const body = table.querySelector("tbody:not(.pinned)");
    const original = [...body.rows];
    for (const button of all("button.sort", table)) {
      button.addEventListener("click", () => {
        const head = button.closest("th");
        const before = head.getAttribute("aria-sort");
        for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
        let rows = original;
        if (before !== "descending") {
          const direction = before === "ascending" ? -1 : 1;
          head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
          const column = head.cellIndex;
          rows = original.filter((row) => !row.classList.contains("group")).sort((one, two) => {
            const a = valueOf(one, column);
            const b = valueOf(two, column);
            if (a === null || b === null) return (a === null) - (b === null);
            return direction * compare(a, b);
          });
        }
        body.replaceChildren(...rows);
      });
    }
  }

  // One attack of several panels.
  for (const choice of all("select[data-panels]")) {
    const panels = all(".panel", document.getElementById(choice.dataset.panels));
    const show = () => {
      for (const panel of panels) panel.hidden = panel.dataset.panel !== choice.value;
    };
    choice.addEventListener("change", show);
    show(); // a browser may remember another choice
  }

  // Examples: cards and rows that fit every filter.
  for (const form of all("form[data-filters]")) {
    const items = all("[data-item]", document.getElementById(form.dataset.filters));
    const output = form.querySelector("output");
    const wanted = (name) => form.elements.namedItem(name)?.value ?? "";
    const filter = () => {
      const [label, attack] = [wanted("labels"), wanted("attack")];
      const [flipped, broken] = [wanted("flipped"), wanted("broken")];
      let shown = 0;
      for (const item of items) {
        const own = item.dataset;
        const fits = (!label || own.labels.includes(`|${label}|`))
          && (!attack || own.attack === undefined || own.attack === attack)
          && (!flipped || own.flipped === flipped)
          && (!broken || (broken === "none" ? own.broken === "" : own.broken.includes(`|${broken}|`)));
        item.hidden = !fits;
        if (fits && own.item === "card") shown += 1;
      }
      const cards = items.filter((item) => item.dataset.item === "card").length;
      output.textContent = cards ? `${shown} of ${cards} shown` : "";
    };
    form.addEventListener("change", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    filter();
  }

  // Clips: the three screens of a card show the same frame of their strips.
  const FRAME_MILLISECONDS = 160;
  const players = [];
  for (const card of all(".card")) {
    const tracks = card.querySelector(".tracks");
    const frames = Number(tracks?.dataset.frames ?? 1);
    if (frames < 2) continue;
    const slider = card.querySelector("input[type=range]");
    const button = card.querySelector("[data-play]");
    const said = card.querySelector("[data-frame]");
    const screens = all("canvas", card);
    const strips = all("img[data-track]", card);
    const draw = () => {
      const frame = Number(slider.value);
      screens.forEach((screen, place) => {
        const { width, height } = screen;
        const strip = strips[place];
        if (!strip.complete) return;
        screen.getContext("2d").drawImage(strip, frame * width, 0, width, height, 0, 0, width, height);
      });
      said.textContent = `${frame + 1} / ${frames}`;
    };
    let timer = null;
    const play = (on) => {
      clearInterval(timer);
      timer = on ? setInterval(() => {
        if (card.hidden) return;
        slider.value = String((Number(slider.value) + 1) % frames);
        draw();
      }, FRAME_MILLISECONDS) : null;
      button.textContent = on ? "Pause" : "Play";
      button.setAttribute("aria-pressed", String(on));
    };
    button.addEventListener("click", () => play(timer === null));
    slider.addEventListener("input", () => { play(false); draw(); });
    for (const strip of strips) strip.addEventListener("load", draw);
    draw();
    players.push({ card, play });
  }
  for (const button of all("[data-play-all]")) {
    const own = players.filter(({ card }) => button.closest("details").contains(card));
    if (!own.length) button.hidden = true;
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const { play } of own) play(on);
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? "Pause all" : "Play all";
    });
  }

  // Commands: to the clipboard, or, where a file may not, selected for the person to copy.
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.previousElementSibling);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
