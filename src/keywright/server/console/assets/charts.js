// Requests by day, drawn from the table beside it, which stays for whoever reads rather than looks.
customElements.define("usage-chart", class extends HTMLElement {
  connectedCallback() {
    const [at, codes] = JSON.parse(this.querySelector("script").textContent);
    if (!at.length || typeof uPlot === "undefined") return;
    const ok = codes.map((one) => one.ok ?? 0);
    const refused = codes.map((one) => Object.values(one).reduce((sum, count) => sum + count, 0) - (one.ok ?? 0));
    const place = document.createElement("div");
    place.className = "plot";
    place.setAttribute("aria-hidden", "true");
    this.prepend(place);
    const ink = getComputedStyle(document.documentElement);
    const colour = (name) => ink.getPropertyValue(name).trim();
    const bars = uPlot.paths.bars({ size: [0.6, 40] });
    const axis = { stroke: colour("--muted-foreground"), grid: { stroke: colour("--border"), width: 1 }, ticks: { show: false } };
    const plot = new uPlot({
      width: this.clientWidth, height: 200, legend: { show: true }, cursor: { points: { show: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high) * 1.1] } },
      axes: [{ ...axis }, { ...axis, size: 60 }],
      series: [
        { label: "Day" },
        { label: "In all", stroke: colour("--bad"), fill: colour("--bad"), paths: bars, points: { show: false } },
        { label: "Let in", stroke: colour("--good"), fill: colour("--good"), paths: bars, points: { show: false } },
      ],
    }, [at.map((one) => one / 1e6), ok.map((one, n) => one + refused[n]), ok], place);
    addEventListener("resize", () => plot.setSize({ width: this.clientWidth, height: 200 }));
  }
});
