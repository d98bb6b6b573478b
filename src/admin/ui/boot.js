// Runs before the first paint, a classic script on purpose: a module would come too late. Puts the chosen theme on the
// page, so that it never flashes in the other one; and tries again where the page's parts do not fit together, as they
// may for a moment while instances of two versions answer. After that it says so instead of staying empty.
(() => {
  const root = document.documentElement;
  const stored = (name, value) => {
    // Private windows may refuse: then the system's theme stays, and nothing is tried again.
    try {
      return value === undefined ? sessionStorage.getItem(name) : sessionStorage.setItem(name, value);
    } catch {
      return '9';
    }
  };
  try {
    const theme = localStorage.getItem('merido.theme');
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
  } catch { /* as above */ }

  let failed = false;
  addEventListener('error', (event) => {
    // Once it stands (`app.js` says so), an error is an error and no reason to begin anew.
    const part = event.target instanceof HTMLScriptElement || event.target instanceof HTMLLinkElement || event.target === window;
    if (failed || !part || root.dataset.up !== undefined) return;
    failed = true;
    const times = Number(stored('merido.again') ?? 0);
    if (times < 5) {
      stored('merido.again', String(times + 1));
      setTimeout(() => location.reload(), 400 * 2 ** times);
      return;
    }
    const words = document.createElement('p');
    words.className = 'noscript';
    words.setAttribute('role', 'alert');
    words.textContent = 'The dashboard could not be loaded whole. Instances of two versions may be answering: reload in a minute.';
    const place = document.getElementById('app');
    (place ?? document.body ?? root).replaceChildren(words);
  }, true);
  addEventListener('merido:up', () => {
    root.dataset.up = '';
    stored('merido.again', '0');
  });
})();
