// Light, dark, or as the system has it; charts are drawn again in the colours of the page.
const THEMES = ["system", "light", "dark"];
const themeListeners = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function switchTheme() {
  const root = document.documentElement, button = document.getElementById("theme");
  const next = THEMES[(THEMES.indexOf(root.dataset.theme || "system") + 1) % THEMES.length];
  root.dataset.theme = next;
  button.textContent = `theme: ${next}`;
  themeListeners.forEach((listener) => listener());
}

document.getElementById("theme").addEventListener("click", switchTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeListeners.forEach((listen) => listen()));
