// Which of the values that vary sets the best trials apart.
figure("importance", (item) => {
  const shares = Object.entries(study.importances[choice.objective] ?? {});
  if (!shares.length) return empty(item.plot, complete.length < study.fewest ? `Ranked from ${study.fewest} complete trials on; there are ${complete.length}.` : "Nothing varies in every trial.");
  const names = new Map(study.keys.map((key) => [key.key, key.name]));
  const most = Math.max(...shares.map(([, share]) => share)) || 1;
  const rows = shares.map(([key, share]) => [
    element("dt", { title: key }, names.get(key) ?? key),
    element("dd", {}, element("span", { class: "bar", style: `width:${((100 * share) / most).toFixed(1)}%` }), element("span", { class: "share" }, share.toFixed(2))),
  ]);
  item.plot.replaceChildren(element("dl", { class: "bars" }, rows));
  item.note("share in what sets the best trials apart (PED-ANOVA)");
});
