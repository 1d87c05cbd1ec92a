// Renews the page as the server says. Without this script a page is as it was when it was loaded.
(() => {
  "use strict";
  const main = document.querySelector("main[data-events]");
  const state = document.getElementById("state");
  if (!main || !window.EventSource) return;

  // Whoever is about to press, type or copy something must not have it pulled away.
  const busy = () => {
    const selection = document.getSelection();
    return main.querySelector("details[open]") !== null
      || main.contains(document.activeElement)
      || (selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode));
  };

  let next = null;
  const show = () => {
    if (next === null || busy()) return;
    main.innerHTML = next;
    next = null;
  };

  let source = null;
  const stop = () => {
    if (source) source.close();
    source = null;
  };
  const start = () => {
    stop();
    source = new EventSource(main.dataset.events);
    source.onmessage = (event) => {
      next = event.data;
      show();
    };
    source.onopen = () => { state.textContent = ""; };
    source.onerror = () => {
      state.textContent = "not renewed";
      // A refusal ends it for good; a lost connection does not.
      if (source && source.readyState === EventSource.CLOSED) {
        stop();
        setTimeout(() => { if (!document.hidden && !source) start(); }, 10000);
      }
    };
  };

  setInterval(show, 500);
  document.addEventListener("visibilitychange", () => { document.hidden ? stop() : start(); });
  addEventListener("pagehide", stop);
  if (!document.hidden) start();
})();
