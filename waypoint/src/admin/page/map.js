// Draws the service map: clients on the left, services in the middle, workloads on the right. A line is as
// thick as its rate is high, and coloured by what goes wrong on it. Fetches nothing.
"use strict";

const COLUMNS = ["client", "service", "workload"];
const LABELLED_MAX = 6;
const BOX = { width: 190, height: 40, gapX: 150, gapY: 18, margin: 8 };

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function edgeClass(edge) {
  if (edge.failed > 0) return "failed";
  return edge.denied > 0 ? "denied" : "fine";
}

function edgeText(edge) {
  const latency = edge.p99_ms === null ? "" : `, p99 ${edge.p99_ms.toFixed(1)} ms`;
  return `${edge.rate.toFixed(2)}/s${latency}`;
}

// Places of all nodes, by kind and name.
function layout(edges) {
  const places = new Map();
  const rows = { client: 0, service: 0, workload: 0 };
  for (const node of edges.flatMap((edge) => [edge.from, edge.to])) {
    const id = `${node.kind} ${node.name}`;
    if (places.has(id)) continue;
    const column = COLUMNS.indexOf(node.kind);
    const row = rows[node.kind]++;
    places.set(id, {
      node,
      x: BOX.margin + column * (BOX.width + BOX.gapX),
      y: BOX.margin + row * (BOX.height + BOX.gapY),
    });
  }
  const most = Math.max(1, ...Object.values(rows));
  return { places, height: 2 * BOX.margin + most * (BOX.height + BOX.gapY) };
}

function drawMap(graph, edges) {
  const { places, height } = layout(edges);
  const width = 2 * BOX.margin + 3 * BOX.width + 2 * BOX.gapX;
  graph.replaceChildren();
  graph.setAttribute("width", width);
  graph.setAttribute("height", height);
  const fastest = Math.max(1e-9, ...edges.map((edge) => edge.rate));
  for (const edge of edges) {
    const from = places.get(`${edge.from.kind} ${edge.from.name}`);
    const to = places.get(`${edge.to.kind} ${edge.to.name}`);
    const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
    const [x2, y2] = [to.x, to.y + BOX.height / 2];
    const middle = (x1 + x2) / 2;
    const line = svg("path", {
      d: `M${x1} ${y1} C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`,
      class: edgeClass(edge),
      "stroke-width": 1.5 + 4 * (edge.rate / fastest),
      "data-from": edge.from.name,
      "data-to": edge.to.name,
    });
    line.append(svg("title", {}, `${edge.from.name} to ${edge.to.name}: ${edgeText(edge)}`));
    graph.append(line);
    // Where lines cross, numbers would lie on each other: then they are in the table alone.
    if (edges.length > LABELLED_MAX) continue;
    const text = { x: middle, y: (y1 + y2) / 2 - 5, class: "under", "text-anchor": "middle" };
    graph.append(svg("text", text, edgeText(edge)));
  }
  for (const { node, x, y } of places.values()) {
    const group = svg("g", { "data-kind": node.kind, "data-node": node.name });
    group.append(svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 5 }));
    const shown = node.name.length > 26 ? `${node.name.slice(0, 25)}…` : node.name;
    group.append(svg("text", { x: x + 8, y: y + 18 }, shown));
    group.append(svg("text", { x: x + 8, y: y + 33, class: "under" }, node.kind));
    group.append(svg("title", {}, node.name));
    graph.append(group);
  }
}
