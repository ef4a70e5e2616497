"""A plot of how costs grow, as SVG: operations a second over the size of something, both on logarithmic scales."""

from math import ceil, floor, log10

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 380, 260, 58, 34, 16, 40
COLOURS = {"put": "#c0392b", "get": "#2563a8", "get-local": "#2e8b57"}
PANELS = [("nodes", "nodes", "nodes"), ("clients", "clients", "clients"), ("values", "value_size", "bytes in a value"), ("keys", "keys", "keys")]


def draw(results, path):
    panels = [panel(results[part], key, label) for part, key, label in PANELS]
    parts = [f'<g transform="translate({i % 2 * WIDTH},{i // 2 * HEIGHT})">{body}</g>' for i, body in enumerate(panels)]
    size = f'width="{2 * WIDTH}" height="{2 * HEIGHT}" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}"'
    with open(path, "w") as out:
        print(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">', file=out)
        print('<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", sep="\n", file=out)


def panel(results, key, label):
    points = {}
    for result in results:
        if result.get("system") == "kvd" and key in result:
            points.setdefault((result["op"], result["clients"] if key != "clients" else None), []).append((result[key], result["ops_per_s"]))
    if not points:
        return ""
    xs = sorted({x for line in points.values() for x, _ in line})
    ys = [y for line in points.values() for _, y in line if y > 0]
    low, high = floor(log10(min(ys))), ceil(log10(max(ys)))
    span = log10(xs[-1] / xs[0]) or 1
    place_x = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * log10(x / xs[0]) / span
    place_y = lambda y: TOP + (HEIGHT - TOP - BOTTOM) * (high - log10(y)) / max(1, high - low)
    body = [f'<text x="{LEFT}" y="18" font-weight="bold">operations a second, by {label}</text>']
    for power in range(low, high + 1):
        y = place_y(10**power)
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for x in xs:
        body.append(f'<text x="{place_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(x)}</text>')
    for (op, clients), line in points.items():
        colour = COLOURS.get(op, "#555")
        line = sorted(line)
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in line)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        body += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="2.6" fill="{colour}"/>' for x, y in line]
        x, y = line[-1]
        name = op if clients is None else f"{op}, {clients}"
        body.append(f'<text x="{place_x(x):.1f}" y="{place_y(y) - 7:.1f}" text-anchor="end" fill="{colour}">{name}</text>')
    return "".join(body)


def short(x):
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if x >= size:
            return f"{x / size:g}{unit}" if x % size == 0 else f"{x / size:.3g}{unit}"
    return str(x)
