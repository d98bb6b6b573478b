// A list whose items are moved by dragging a handle, or by the arrow keys on it. Tells the new order once, at the end.

import { say } from '../dom.js';

/** `handle`, `item`: selectors; `name(node)`: for the ear; `moved(nodes)`: the new order. */
export function sortable(list, { handle, item, name, moved }) {
  const items = () => [...list.children].filter((node) => node.matches(item));
  let settle = 0;

  list.addEventListener('keydown', (event) => {
    const grip = event.target.closest(handle);
    const way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!grip || !way) return;
    event.preventDefault();
    const node = grip.closest(item);
    const all = items();
    const to = all.indexOf(node) + way;
    if (to < 0 || to >= all.length) return say(`${name(node)} is ${way < 0 ? 'first' : 'last'} already`);
    if (way < 0) all[to].before(node);
    else all[to].after(node);
    grip.focus();
    say(`${name(node)}: position ${to + 1} of ${all.length}`);
    clearTimeout(settle);
    settle = setTimeout(() => moved(items()), 600);
  });

  list.addEventListener('pointerdown', (event) => {
    const grip = event.target.closest(handle);
    if (!grip || event.button !== 0) return;
    event.preventDefault();
    grip.focus();
    const node = grip.closest(item);
    const before = items();
    grip.setPointerCapture(event.pointerId);
    node.classList.add('dragged');
    const move = (at) => {
      for (const other of items()) {
        if (other === node) continue;
        const box = other.getBoundingClientRect();
        const middle = box.top + box.height / 2;
        const above = node.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_PRECEDING;
        if (above && at.clientY < middle) return other.before(node);
        if (!above && at.clientY > middle) other.after(node);
      }
    };
    const end = () => {
      grip.removeEventListener('pointermove', move);
      node.classList.remove('dragged');
      const after = items();
      if (after.some((one, n) => one !== before[n])) moved(after);
    };
    grip.addEventListener('pointermove', move);
    grip.addEventListener('lostpointercapture', end, { once: true });
  });
}
