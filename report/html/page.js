"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  const slider = byId("prevalence");
  if (slider) {
    const show = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");
    const update = () => {
      const prevalence = Number(slider.value) / 100;
      byId("prevalence-shown").textContent = Number(slider.value).toFixed(1) + " %";
      for (const row of document.querySelectorAll("#predictive-values tbody tr")) {
        const known = row.dataset.sensitivity !== "" && row.dataset.specificity !== "";
        const sensitivity = known ? Number(row.dataset.sensitivity) : NaN;
        const specificity = known ? Number(row.dataset.specificity) : NaN;
        const found = sensitivity * prevalence;
        const alarms = (1 - specificity) * (1 - prevalence);
        const missed = (1 - sensitivity) * prevalence;
        const cleared = specificity * (1 - prevalence);
        row.cells[1].textContent = show(found / (found + alarms));
        row.cells[2].textContent = show(cleared / (cleared + missed));
      }
    };
    slider.addEventListener("input", update);
    update();
  }

  const table = byId("look-table");
  if (!table) return;
  const body = table.tBodies[0];
  const visibleRows = () => [...body.rows].filter((row) => !row.hidden);

  const filter = byId("filter");
  const applyFilter = () => {
    const wanted = filter.value.trim().toLowerCase();
    for (const row of body.rows) row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
    byId("shown").textContent = visibleRows().length + " of " + body.rows.length + " shown";
  };
  filter.addEventListener("input", applyFilter);
  applyFilter();

  for (const button of table.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const descending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[heading.cellIndex].textContent.trim();
      const compare = button.dataset.sort === "number" ? (a, b) => Number(key(a)) - Number(key(b)) : (a, b) => key(a).localeCompare(key(b));
      const rows = [...body.rows].sort(compare);
      if (descending) rows.reverse();
      body.append(...rows);
    });
  }

  const disarm = (text) => (/^[=+\-@\t\r]/.test(text) ? "'" + text : text);
  const quote = (text) => '"' + disarm(text).replaceAll('"', '""') + '"';
  byId("download").addEventListener("click", () => {
    const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
    const place = titles.indexOf("path");
    const lines = [titles.slice(1)];
    for (const row of visibleRows()) {
      const cells = [...row.cells].map((cell) => cell.textContent.trim());
      cells[place] = row.dataset.path; // without tags
      lines.push(cells.slice(1));
    }
    const text = "\ufeff" + lines.map((line) => line.map(quote).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "look-first.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  const viewer = byId("viewer");
  let current = null;
  const open = (row) => {
    current = row;
    const rows = visibleRows();
    byId("viewer-title").textContent = row.dataset.path;
    byId("viewer-text").textContent = row.dataset.text;
    byId("viewer-place").textContent = rows.indexOf(row) + 1 + " of " + rows.length;
    for (const [id, source] of [["viewer-image", row.dataset.large], ["viewer-overlay", row.dataset.overlay]]) {
      const image = byId(id);
      image.hidden = source === "";
      if (source === "") image.removeAttribute("src");
      else image.src = source;
    }
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const rows = visibleRows();
    const next = rows[rows.indexOf(current) + by];
    if (next) open(next);
  };
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (button) open(button.closest("tr"));
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight" || event.key === "ArrowDown") step(1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") step(-1);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => current && current.querySelector("button.open").focus());
})();
