// Requests by day, drawn from the table beside it, which stays for whoever reads rather than looks.
customElements.define("usage-chart", class extends HTMLElement {
  connectedCallback() {
    const [at, codes] = JSON.parse(this.querySelector("script").textContent);
    if (!at.length || typeof uPlot === "undefined") return;
    const ok = codes.map((one) => one.ok ?? 0);
    const refused = codes.map((one) => Object.values(one).reduce((sum, count) => sum + count, 0) - (one.ok ?? 0));
    const data = [at.map((one) => one / 1e6), ok.map((one, n) => one + refused[n]), ok];
    const place = document.createElement("div");
    place.className = "plot";
    place.setAttribute("aria-hidden", "true");
    this.prepend(place);
    const day = (second) => new Date(second * 1e3).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    const told = (counts) => (_plot, _value, _series, n) => (n == null ? "–" : counts[n]);
    const bars = uPlot.paths.bars({ size: [0.6, 40] });
    let plot;
    const draw = () => {
      plot?.destroy();
      const ink = getComputedStyle(document.documentElement);
      const colour = (name) => ink.getPropertyValue(name).trim();
      const axis = { stroke: colour("--muted-foreground"), grid: { stroke: colour("--border"), width: 1 }, ticks: { show: false } };
      const series = (label, name, counts) => ({ label, stroke: colour(name), fill: colour(name), paths: bars, points: { show: false }, value: told(counts) });
      plot = new uPlot({
        width: this.clientWidth, height: 200, legend: { show: true }, cursor: { points: { show: false } },
        tzDate: (second) => uPlot.tzDate(new Date(second * 1e3), "UTC"),
        scales: {
          x: { range: (_, first, last) => [first - 43200, last + 43200] }, // a day's bar stands around its beginning
          y: { range: (_, low, high) => [0, Math.max(1, high) * 1.1] },
        },
        axes: [{ ...axis, values: (_, seconds) => seconds.map(day) }, { ...axis, size: 60 }],
        series: [{ label: "Day", value: (_, second) => (second == null ? "–" : day(second)) }, series("Refused", "--bad", refused), series("Let in", "--good", ok)],
      }, data, place);
    };
    draw();
    addEventListener("resize", () => plot.setSize({ width: this.clientWidth, height: 200 }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }
});
