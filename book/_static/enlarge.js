// On a phone, a figure can be enlarged: a button, or a tap on the figure, shows
// it at twice the width of the screen, where a finger or the arrow keys move
// it. Escape, or the button, closes it.
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector("article.bd-article");
  const figures = article?.querySelectorAll("svg.figure") ?? [];
  if (!figures.length) return;

  function button(kind, text, onClick) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = kind;
    made.textContent = text;
    made.addEventListener("click", onClick);
    return made;
  }

  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  article.append(dialog);

  function show(figure) {
    const box = document.createElement("div");
    box.tabIndex = 0;
    box.append(figure.cloneNode(true));
    dialog.ariaLabel = figure.getAttribute("aria-label");
    const close = button("", "Close", () => dialog.close());
    dialog.replaceChildren(box, close);
    dialog.showModal();
    close.focus();
  }

  dialog.addEventListener("close", () => dialog.replaceChildren());
  for (const figure of figures) {
    const place = figure.closest(".wide") ?? figure;
    const opener = button("enlarge", "Enlarge", () => show(figure));
    place.after(opener);
    figure.addEventListener("click", () => {
      if (opener.checkVisibility()) show(figure);
    });
  }
});
