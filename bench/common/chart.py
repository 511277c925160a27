"""One operation as its steps, one below the other, each as long as its median took: for docs/engine.md and for whoever looks for the longest."""
WIDTH = 64


def chart(title, steps):
    """`steps`: [(name, milliseconds)], in their order."""
    total = sum(ms for _, ms in steps)
    if not total:
        return []
    longest = max(len(name) for name, _ in steps)
    lines, before = [f"{title}: {total:.0f} ms"], 0.0
    for name, ms in steps:
        start, end = round(before / total * WIDTH), round((before + ms) / total * WIDTH)
        lines.append(f"  {name:<{longest}}  {ms:8.1f}  {' ' * start}{'█' * (end - start) or '▏'}")
        before += ms
    return lines
