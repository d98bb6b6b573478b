// Elements by hand. Text always goes in as text: nothing here (or anywhere in this folder) parses markup from data.

const SVG = 'http://www.w3.org/2000/svg';

/** An element. `props`: attributes, `on…` listeners, `class`, `css` (custom properties and styles), `data`. */
export function h(tag, props, ...kids) {
  return fill(document.createElement(tag), props, kids);
}

/** The same for SVG. */
export function s(tag, props, ...kids) {
  return fill(document.createElementNS(SVG, tag), props, kids);
}

function fill(node, props, kids) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'css') for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name === 'data') Object.assign(node.dataset, value);
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  add(node, kids);
  return node;
}

/** Appends nodes, texts and lists of them; nothing for what is empty. */
export function add(node, kids) {
  for (const kid of kids) {
    if (kid === null || kid === undefined || kid === false) continue;
    if (Array.isArray(kid)) add(node, kid);
    else node.append(kid);
  }
  return node;
}

/** Replaces all that `node` holds. */
export function put(node, ...kids) {
  node.replaceChildren();
  return add(node, kids);
}

/** Sets a text only where it changes: a screen reader and the layout notice the difference. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Renders anew and gives the focus back to whoever had it, by `id` or `data-focus`. */
export function keepFocus(root, render) {
  const had = document.activeElement;
  const name = root.contains(had) ? had.id || had.dataset.focus : '';
  render();
  if (!name || root.contains(had)) return;
  const again = [...root.querySelectorAll('[id],[data-focus]')].find((one) => (one.id || one.dataset.focus) === name);
  again?.focus({ preventScroll: true });
}

/** Says something to whoever does not see it. */
export function say(words) {
  const place = document.getElementById('say');
  place.textContent = '';
  requestAnimationFrame(() => { place.textContent = words; });
}

let ids = 0;
/** A fresh id, for labels. */
export const uid = (prefix = 'n') => `${prefix}-${++ids}`;

/** Calls `work` at most once in `ms`, and once more at the end. */
export function throttled(ms, work) {
  let timer = 0;
  let last = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      work();
    }, Math.max(0, ms - (performance.now() - last)));
  };
}

/** Calls `work` once nothing more has come for `ms`. */
export function settled(ms, work) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), ms);
  };
}
