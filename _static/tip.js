// One tip for a page: a few words beside what they are about. Boards and charts show theirs with it.
"use strict";

window.erasusTip = (() => {
  const box = document.createElement("div");
  let about = null;
  box.id = "tip";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  document.addEventListener("DOMContentLoaded", () => document.body.append(box));

  /** Show a text below what it is about, or above where there is no room, inside the window. */
  function show(text, near) {
    about = near;
    box.textContent = text;
    box.hidden = false;
    const at = near.getBoundingClientRect();
    const room = document.documentElement.clientWidth - box.offsetWidth - 8;
    const above = at.bottom + box.offsetHeight + 8 > window.innerHeight;
    box.style.left = `${Math.max(8, Math.min(at.left, room))}px`;
    box.style.top = `${above ? Math.max(8, at.top - box.offsetHeight - 4) : at.bottom + 4}px`;
  }

  /** Hide it, if it is about one of these elements: another's stays. */
  function hide(selector) {
    if (about?.closest(selector)) box.hidden = true;
  }

  return { id: box.id, show, hide };
})();
