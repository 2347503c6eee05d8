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
