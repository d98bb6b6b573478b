// Icons, drawn on a 20 × 20 grid with strokes. Decoration only: whoever uses one without words labels the button.

import { s } from './dom.js';

const PATHS = {
  pulse: 'M2 10h3.5l2.5-6 4 12 2.5-6H18',
  plug: 'M7 2.5v4M13 2.5v4M5 6.5h10v3a5 5 0 0 1-10 0zM10 14.5v3',
  layers: 'M10 3 2.5 7 10 11l7.5-4zM3 10.5l7 3.8 7-3.8M3 13.8l7 3.7 7-3.7',
  key: 'M12.5 11.5a4 4 0 1 0-3.6-2.2L3 15.2V17.5h2.6v-2h2v-2h1.6l1.3-1.4a4 4 0 0 0 2 .4zM13.6 6.4h.01',
  bars: 'M3.5 17V11M8 17V4M12.5 17V8M17 17V6',
  list: 'M7 5h10M7 10h10M7 15h10M3 5h.01M3 10h.01M3 15h.01',
  server: 'M3 4h14v5H3zM3 11h14v5H3zM6 6.5h.01M6 13.5h.01M9 6.5h2M9 13.5h2',
  history: 'M3 4.5v4h4M3.3 8.5A7 7 0 1 1 3 11M10 6.5V10l2.5 1.6',
  gear: 'M10 12.6a2.6 2.6 0 1 0 0-5.2 2.6 2.6 0 0 0 0 5.2zM16.2 12l1.3 1-1.6 2.8-1.6-.6-1.4.8-.3 1.7H9.4l-.3-1.7-1.4-.8-1.6.6L4.5 13l1.3-1v-1.8L4.5 9.1 6.1 6.3l1.6.6 1.4-.8.3-1.7h3.2l.3 1.7 1.4.8 1.6-.6 1.6 2.8-1.3 1.1z',
  sun: 'M10 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M4.3 15.7l1.1-1.1M14.6 5.4l1.1-1.1',
  moon: 'M16.5 12A7 7 0 0 1 8 3.5 7 7 0 1 0 16.5 12z',
  auto: 'M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14',
  plus: 'M10 4v12M4 10h12',
  x: 'M5 5l10 10M15 5 5 15',
  copy: 'M7.5 7.5h9v9h-9zM12.5 7.5v-4h-9v9h4',
  check: 'M4 10.5l4 4 8-9',
  trash: 'M3.5 5.5h13M8 5.5v-2h4v2M5.5 5.5l.700 11h7.6l.700-11M8.5 8.5v5M11.5 8.5v5',
  edit: 'M4 16l.800-3.4L13.5 4a1.6 1.6 0 0 1 2.4 2.4L7.3 15.2z',
  rotate: 'M16.5 5v4h-4M16.2 9A6.5 6.5 0 1 0 16 12.5',
  unlock: 'M4.5 9h11v8h-11zM7 9V6.5a3 3 0 0 1 5.8-1M10 12v2',
  right: 'M8 5l5 5-5 5',
  down: 'M5 8l5 5 5-5',
  up: 'M5 12l5-5 5 5',
  search: 'M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l4 4',
  pause: 'M7 4.5v11M13 4.5v11',
  play: 'M6 4l10 6-10 6z',
  download: 'M10 3v10M6 9.5l4 4 4-4M3.5 16.5h13',
  grip: 'M7.5 5h.01M12.5 5h.01M7.5 10h.01M12.5 10h.01M7.5 15h.01M12.5 15h.01',
  menu: 'M3 5.5h14M3 10h14M3 14.5h14',
  out: 'M8 3.5H4v13h4M12 6.5l3.5 3.5-3.5 3.5M15 10H8',
  bolt: 'M11 2 4 11.5h5L8.5 18 16 8.5h-5z',
  warn: 'M10 3 2 17h16zM10 8.5v4M10 14.8h.01',
  external: 'M8 4H4v12h12v-4M11.5 3.5h5v5M16 4l-7 7',
  dots: 'M4.5 10h.01M10 10h.01M15.5 10h.01',
};

/** One of them. */
export function icon(name, size = 16) {
  const d = PATHS[name];
  const thick = name === 'grip' || name === 'dots';
  return s('svg', { viewBox: '0 0 20 20', width: size, height: size, class: thick ? 'icon thick' : 'icon', 'aria-hidden': 'true', focusable: 'false' }, s('path', { d }));
}
