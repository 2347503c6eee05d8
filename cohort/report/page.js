for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const entries = Array.from(body.rows, (row) => {
      const cell = row.cells[head.cellIndex];
      const value = cell.dataset.value;
      return { row, text: cell.textContent, value: value ? Number(value) : NaN, numeric: value !== undefined };
    });
    entries.sort((a, b) => {
      if (!a.numeric) return (rising ? 1 : -1) * a.text.localeCompare(b.text, "en", { numeric: true });
      if (isNaN(a.value) || isNaN(b.value)) return isNaN(a.value) - isNaN(b.value); // unknown values last
      return (rising ? 1 : -1) * (a.value - b.value);
    });
    body.append(...entries.map((entry) => entry.row));
  });
}

const FLICKER_MS = 600;
for (const views of document.querySelectorAll(".views")) {
  const buttons = Array.from(views.querySelectorAll("button"));
  const pictures = Array.from(views.querySelectorAll("img"));
  let timer = 0;
  const show = (index) => pictures.forEach((picture, at) => { picture.hidden = at !== index; });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      clearInterval(timer);
      const stops = button.dataset.flicker !== undefined && button.getAttribute("aria-pressed") === "true";
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button && !stops));
      if (button.dataset.flicker === undefined) return show(Number(button.dataset.view));
      const turns = button.dataset.flicker.split(",").map(Number);
      if (stops) {
        const resting = buttons.find((other) => Number(other.dataset.view) === turns[1]);
        resting.setAttribute("aria-pressed", "true");
        return show(turns[1]);
      }
      let turn = 0;
      show(turns[0]);
      timer = setInterval(() => { turn = 1 - turn; show(turns[turn]); }, FLICKER_MS);
    });
  }
}
