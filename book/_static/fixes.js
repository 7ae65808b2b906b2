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
});

// A formula that is wider than the page can be scrolled with the keyboard.
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const formula of document.querySelectorAll("div.math mjx-container")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
  }
});
