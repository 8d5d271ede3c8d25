// Which of the values that vary sets the best trials apart.
figure("importance", (item) => {
  const shares = Object.entries(study.importances[choice.objective] ?? {});
  const tooFew = `Ranked from ${study.fewest} complete trials on; there are ${complete.length}.`;
  const words = complete.length < study.fewest ? tooFew : "Nothing varies in every trial.";
  if (!shares.length) return empty(item.plot, words);
  const names = new Map(study.keys.map(({ key, name }) => [key, name]));
  const most = Math.max(...shares.map(([, share]) => share)) || 1;
  const rows = shares.map(([key, share]) => {
    const wide = element("span", { class: "bar", style: `width:${((100 * share) / most).toFixed(1)}%` });
    const value = element("dd", {}, wide, element("span", { class: "share" }, share.toFixed(2)));
    return [element("dt", { title: key }, names.get(key) ?? key), value];
  });
  item.plot.replaceChildren(element("dl", { class: "bars" }, rows));
  item.note("share in what sets the best trials apart (PED-ANOVA)");
});
