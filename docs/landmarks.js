// Landmarks are told apart by their names, and the theme gives some of them the same one.
const named = () => {
  const seen = new Map();
  for (const each of document.querySelectorAll("nav.md-code__nav, nav.md-nav[aria-label]")) {
    const name = (each.dataset.named ??= each.getAttribute("aria-label") ?? "Code");
    const key = name.toLowerCase();
    seen.set(key, (seen.get(key) ?? 0) + 1);
    const label = seen.get(key) > 1 ? `${name} ${seen.get(key)}` : name;
    if (each.getAttribute("aria-label") !== label) each.setAttribute("aria-label", label);
  }
};
new MutationObserver(named).observe(document.documentElement, { childList: true, subtree: true });
