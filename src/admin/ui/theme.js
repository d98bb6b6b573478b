// Runs before the first paint: puts the chosen theme on the page, so that it never flashes in the other one.
// A classic script on purpose: a module would come too late. Without storage the system's choice stays.
(() => {
  try {
    const theme = localStorage.getItem('merido.theme');
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch { /* private windows may refuse */ }
})();
