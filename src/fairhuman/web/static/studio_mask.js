// Masks of a picture's size: one byte a cell, 1 = region. A cell counts where its middle is inside a shape.

export function maskOf(runs, width, height) {
  const mask = new Uint8Array(width * height);
  let at = 0;
  runs.forEach((length, i) => {
    if (i % 2) mask.fill(1, at, at + length);
    at += length;
  });
  return mask;
}

export function runsOf(mask) {
  const runs = [];
  let value = 0;
  let start = 0;
  for (;;) {
    const next = mask.indexOf(1 - value, start);
    if (next < 0) {
      runs.push(mask.length - start);
      return runs;
    }
    runs.push(next - start);
    [value, start] = [1 - value, next];
  }
}

// Sets the cells within `radius` of the line between two points, and always the cell that an end is in.
export function stroke(mask, width, height, [ax, ay], [bx, by], radius, value) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const [x0, x1] = [Math.max(0, Math.floor(Math.min(ax, bx) - radius)), Math.min(width - 1, Math.floor(Math.max(ax, bx) + radius))];
  const [y0, y1] = [Math.max(0, Math.floor(Math.min(ay, by) - radius)), Math.min(height - 1, Math.floor(Math.max(ay, by) + radius))];
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
      const along = length ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
      const [ex, ey] = [px - along * dx, py - along * dy];
      if (ex * ex + ey * ey <= radius * radius) mask[y * width + x] = value;
    }
  }
  for (const [x, y] of [[ax, ay], [bx, by]]) {
    if (x >= 0 && y >= 0 && x < width && y < height) mask[Math.floor(y) * width + Math.floor(x)] = value;
  }
}

export function polygon(mask, width, height, points) {
  for (let y = 0; y < height; y++) {
    const middle = y + 0.5;
    const crossings = [];
    points.forEach(([ax, ay], i) => {
      const [bx, by] = points[(i + 1) % points.length];
      if (ay <= middle !== by <= middle) crossings.push(ax + ((middle - ay) / (by - ay)) * (bx - ax));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const from = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const to = Math.min(width, Math.ceil(crossings[i + 1] - 0.5));
      if (to > from) mask.fill(1, y * width + from, y * width + to);
    }
  }
}

export function box(mask, width, height, [x0, y0, x1, y1]) {
  polygon(mask, width, height, [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
}

// One cell more on each side for `value` 1, one fewer for 0; a mask doesn't shrink from the picture's edge.
export function grown(mask, width, height, value) {
  const found = mask.slice();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      if (mask[i] === value) continue;
      if ((x > 0 && mask[i - 1] === value) || (x < width - 1 && mask[i + 1] === value) || (y > 0 && mask[i - width] === value) || (y < height - 1 && mask[i + width] === value)) {
        found[i] = value;
      }
    }
  }
  return found;
}

export function count(mask) {
  let sum = 0;
  for (let i = 0; i < mask.length; i++) sum += mask[i];
  return sum;
}
