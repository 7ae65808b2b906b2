// What the theme leaves undone for those who listen or use the keyboard.
document.addEventListener("DOMContentLoaded", () => {
  // The title and the search field stand outside every landmark.
  const sidebar = document.querySelector("#pst-primary-sidebar");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "Book");

  // The label hides what the toggle says: "Show the solution".
  for (const summary of document.querySelectorAll("details.hide > summary")) {
    summary.removeAttribute("aria-label");
  }

  // The parameters of a long signature are no list of terms.
  for (const part of document.querySelectorAll("dt.sig :is(dl, dd)")) {
    const box = document.createElement("div");
    box.className = `sig-${part.localName}`;
    box.append(...part.childNodes);
    part.replaceWith(box);
  }
});

// What is wider than the page can be scrolled with the keyboard, whenever the
// page gets another width or something in it is unfolded.
const wide = "pre, .pst-scrollable-table-container, div.math mjx-container";

function makeScrollable() {
  for (const box of document.querySelectorAll(wide)) {
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  new ResizeObserver(makeScrollable).observe(document.body);
});
