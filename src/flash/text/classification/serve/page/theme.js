// Light or dark: the system's, until the switch says otherwise. Runs before anything is painted.
"use strict";

(() => {
  const STORE = "flash-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  try {
    const theme = localStorage.getItem(STORE);
    if (theme === "dark" || theme === "light") {
      root.dataset.theme = theme;
    }
  } catch {
    // a browser that keeps nothing follows the system
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-checked", String(isDark()));
    button.addEventListener("click", () => {
      const dark = !isDark();
      if (dark === system.matches) {
        delete root.dataset.theme;
      } else {
        root.dataset.theme = dark ? "dark" : "light";
      }
      try {
        if (root.dataset.theme) {
          localStorage.setItem(STORE, root.dataset.theme);
        } else {
          localStorage.removeItem(STORE);
        }
      } catch {
        // then it lasts as long as the page
      }
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
