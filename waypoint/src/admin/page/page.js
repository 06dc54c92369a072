// The admin page: asks this waypoint for JSON and shows it. Everything that comes from traffic or
// configuration is put in as text, never as markup.
"use strict";

const FLOWS_SHOWN = 500;
const SECTIONS = ["flows", "map", "routes", "policies", "explain", "diagnostics"];
const byId = (id) => document.getElementById(id);

// An element with a class and children; texts become text nodes.
function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== undefined && child !== null).map(
    (child) => (child instanceof Node ? child : String(child))));
  return element;
}

async function ask(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response;
}

const askJson = async (path) => (await ask(path)).json();

// ---- flows

// The label of a client that is known by its certificate alone.
const ACCOUNT = "k8s:io.cilium.k8s.policy.serviceaccount=";

let after;
let flowQuery = "";

function verdictClass(flow) {
  if (flow.verdict === "DROPPED" || flow.verdict === "ERROR") return "bad";
  return flow.verdict === "AUDIT" ? "odd" : "good";
}

function end(endpoint, service) {
  if (endpoint?.pod_name) return `${endpoint.namespace}/${endpoint.pod_name}`;
  if (endpoint?.workloads?.length) return `${endpoint.namespace}/${endpoint.workloads[0].name}`;
  const account = endpoint?.labels?.find((label) => label.startsWith(ACCOUNT));
  if (account) return `${endpoint.namespace}/${account.slice(ACCOUNT.length)}`;
  if (service?.name) return `${service.namespace}/${service.name}`;
  return endpoint?.namespace ?? "unknown";
}

function kindOf(flow) {
  if (flow.l7) return `http ${(flow.l7.type ?? "").toLowerCase()}`;
  if (flow.event_type?.type === 5) return "policy verdict";
  return flow.event_type?.type === 1 ? "dropped" : "tcp";
}

function flowRow(flow) {
  let [from, to] = [end(flow.source, flow.source_service), end(flow.destination, flow.destination_service)];
  if (flow.is_reply) [from, to] = [to, from];
  const arrow = flow.is_reply ? " ← " : " → ";
  const policies = [...(flow.ingress_denied_by ?? []), ...(flow.ingress_allowed_by ?? [])];
  const names = policies.map((p) => `${p.kind} ${p.namespace ? `${p.namespace}/` : ""}${p.name}`).join(", ");
  const time = flow.time.slice(11, 23);
  const row = make("li", "",
    make("span", "when", time, " "), make("b", "", from), arrow, make("b", "", to), " ",
    make("span", "faint", kindOf(flow), " "), make("span", verdictClass(flow), flow.verdict),
    names ? make("span", "faint", ` by ${names}`) : undefined,
    make("span", "summary", flow.Summary));
  row.dataset.uuid = flow.uuid;
  return row;
}

async function showFlows() {
  if (byId("pause").checked) return;
  const place = after === undefined ? "" : `after=${after}&`;
  const answer = await askJson(`api/flows?${place}${flowQuery}`);
  after = answer.next;
  const list = byId("flow-list");
  list.prepend(...answer.flows.map(flowRow).reverse());
  while (list.childElementCount > FLOWS_SHOWN) list.lastElementChild.remove();
  let note = list.childElementCount ? "" : "Nothing yet.";
  if (answer.lost) note = `${answer.lost} records were overwritten before this page read them.`;
  if (answer.off) note = "This waypoint keeps no flow records (--flow-records 0).";
  byId("flow-note").textContent = note;
}

function queryOf(form) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim()) query.append(name, value.trim());
  return query.toString();
}

byId("flow-filters").addEventListener("submit", (event) => {
  event.preventDefault();
  flowQuery = queryOf(event.target);
  after = undefined;
  byId("flow-list").replaceChildren();
  refresh();
});

// ---- map

const ms = (value) => (value === null ? "" : `${value.toFixed(1)} ms`);

async function showMap() {
  const { edges, span_s, cut } = await askJson("api/map");
  const over = `The last ${Math.round(span_s)} s.`;
  byId("map-note").textContent = edges.length
    ? `${over}${cut ? " There are more edges than are shown." : ""}` : `${over} No traffic.`;
  drawMap(byId("graph"), edges);
  byId("edges").replaceChildren(...edges.map((edge) => make("tr", "",
    make("td", "", edge.from.name), make("td", "", edge.to.name),
    make("td", "", `${edge.rate.toFixed(2)}/s`), make("td", "", edge.requests + edge.streams),
    make("td", edge.denied ? "odd" : "", edge.denied), make("td", edge.failed ? "bad" : "", edge.failed),
    make("td", "", ms(edge.p50_ms)), make("td", "", ms(edge.p99_ms)))));
}

// ---- routes and endpoints

const nameOf = (origin) => `${origin.kind} ${origin.key.namespace}/${origin.key.name}`;

// What a value of the configuration says, in short: `{"prefix": "/a"}` is `prefix /a`.
function short(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(short).filter(Boolean).join(", ");
  if (typeof value !== "object") return String(value);
  return Object.entries(value).map(([key, inner]) => {
    const text = short(inner);
    return text ? `${key} ${text}` : "";
  }).filter(Boolean).join(" ");
}

function targetOf(target) {
  const cluster = target?.cluster ?? target?.Cluster ?? target;
  const service = cluster?.service;
  return service ? `${service.namespace}/${service.name}:${cluster.port}` : short(target);
}

function ruleRow(rule, index) {
  const sum = rule.backends.reduce((all, backend) => all + backend.weight, 0);
  const backends = rule.backends.map((backend) => {
    const share = sum ? (100 * backend.weight) / sum : 0;
    const bar = make("span", "bar");
    bar.style.width = `${share * 0.6}px`;
    return make("div", "", `${targetOf(backend.target)} weight ${backend.weight} (${share.toFixed(0)} %) `, bar);
  });
  return make("tr", "", make("td", "", index), make("td", "", short(rule.matches) || "everything"),
    make("td", "", ...backends), make("td", "bad", rule.broken ?? ""));
}

function table(head, rows) {
  const heading = make("tr", "", ...head.map((text) => make("th", "", text)));
  return make("div", "wide", make("table", "", make("thead", "", heading), make("tbody", "", ...rows)));
}

function endpointRow(endpoint) {
  const health = endpoint.ejected
    ? make("span", "bad", `ejected ${endpoint.ejected.since_s} s ago`) : make("span", "good", "in use");
  return make("tr", "", make("td", "", endpoint.address), make("td", "", endpoint.pod ?? ""),
    make("td", "", endpoint.hbone_identity ? "HBONE" : "plain"),
    make("td", "", endpoint.active_requests ?? 0), make("td", "", health));
}

function servicePart(service, clusters) {
  const parts = [make("h2", "", `${service.key.namespace}/${service.key.name}`)];
  for (const port of service.ports) {
    const named = port.name ? `, ${port.name}` : "";
    parts.push(make("p", "note", `port ${port.number}${named}, ${port.protocol}`));
    for (const route of [...port.routes, ...(port.stream_routes ?? [])]) {
      parts.push(make("div", "", nameOf(route.origin)),
        table(["rule", "matches", "to", ""], (route.rules ?? []).map(ruleRow)));
    }
    const cluster = clusters.get(`${service.key.namespace}/${service.key.name}:${port.number}`);
    if (!cluster) continue;
    parts.push(cluster.endpoints.length
      ? table(["endpoint", "pod", "by", "active", "health"], cluster.endpoints.map(endpointRow))
      : make("p", "odd", `no endpoints${cluster.absence ? `: ${cluster.absence}` : ""}`));
  }
  return make("article", "", ...parts);
}

async function showRoutes() {
  const dump = await askJson("config_dump");
  const clusters = new Map(dump.clusters.map((cluster) => [cluster.cluster, cluster]));
  byId("route-list").replaceChildren(...dump.services.map((service) => servicePart(service, clusters)));
}

// ---- policies

// Samples of one metric in Prometheus' text format, with their labels.
function samples(text, name) {
  const found = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith(`${name}{`)) continue;
    const labels = {};
    for (const [, key, value] of line.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    found.push({ labels, value: Number(line.slice(line.lastIndexOf(" ") + 1)) });
  }
  return found;
}

async function showPolicies() {
  const [dump, text] = await Promise.all([askJson("config_dump"), ask("metrics").then((r) => r.text())]);
  const rows = new Map();
  const row = (policy, rule) => {
    const id = `${policy} ${rule}`;
    if (!rows.has(id)) rows.set(id, { policy, rule, allow: 0, deny: 0, audit: 0, dry: [] });
    return rows.get(id);
  };
  const known = new Map();
  for (const service of dump.services) {
    for (const policy of service.policies ?? []) {
      const name = [policy.origin.kind, policy.origin.key.namespace, policy.origin.key.name].filter(Boolean).join("/");
      const entry = known.get(name) ?? { policy, services: [] };
      entry.services.push(`${service.key.namespace}/${service.key.name}`);
      known.set(name, entry);
      policy.rules.forEach((_, index) => row(name, String(index)));
    }
  }
  for (const { labels, value } of samples(text, "cairn_policy_verdicts_total")) {
    row(labels.policy, labels.rule)[labels.outcome] += value;
  }
  for (const { labels, value } of samples(text, "cairn_policy_audit_total")) {
    row(labels.policy, labels.rule).audit += value;
  }
  for (const { labels, value } of samples(text, "cairn_policy_dry_run_total")) {
    if (value) row(labels.policy, labels.rule).dry.push(`would ${labels.outcome} ${value}`);
  }
  byId("policy-list").replaceChildren(...[...rows.values()].map((each) => {
    const { policy, services } = known.get(each.policy) ?? { services: [] };
    const tried = policy?.dry_run ? " (dry run)" : "";
    return make("tr", "", make("td", "", each.policy), make("td", "", `${short(policy?.action)}${tried}`),
      make("td", "", services.join(", ")), make("td", "", each.rule), make("td", "", each.allow),
      make("td", each.deny ? "odd" : "", each.deny), make("td", "", each.audit), make("td", "", each.dry.join(", ")));
  }));
}

// ---- explain

function answerParts(report) {
  const parts = [];
  const add = (name, value) => { if (value) parts.push([name, value]); };
  add("refused", report.refused && `${report.refused.phase}: ${report.refused.reason}`);
  add("service", report.destination?.service);
  add("decided by", report.verdict && (report.verdict.policy ? short(report.verdict.policy) : "default"));
  add("reason", report.answer?.reason ?? report.verdict?.reason);
  add("route", report.route && (report.route.route ? `${nameOf(report.route.route)} rule ${report.route.rule}` : report.route.kind));
  add("answer", report.answer && `${report.answer.status} ${report.answer.details}`);
  for (const backend of report.backends ?? []) {
    const endpoints = backend.endpoints.map((endpoint) => endpoint.address).join(", ");
    add(`${backend.share_percent} %`, `${backend.name}: ${endpoints || "no endpoints"}`);
  }
  return parts;
}

byId("question").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(event.target)) {
    for (const each of name === "header" ? value.split("\n") : [value]) if (each.trim()) query.append(name, each.trim());
  }
  const verdict = byId("verdict");
  try {
    const report = await askJson(`api/explain?${query}`);
    verdict.textContent = report.passes ? "passes" : "does not pass";
    verdict.className = `verdict ${report.passes ? "good" : "bad"}`;
    byId("answer").replaceChildren(...answerParts(report).flatMap(
      ([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    byId("report").textContent = JSON.stringify(report, null, 2);
  } catch (error) {
    verdict.textContent = error.message;
    verdict.className = "verdict odd";
    byId("answer").replaceChildren();
    byId("report").textContent = "";
  }
});

// ---- diagnostics

async function showDiagnostics() {
  const dump = await askJson("config_dump");
  const reload = dump.last_reload;
  byId("reload").textContent = reload
    ? `Snapshot ${dump.snapshot}; last reload ${reload.result} at ${reload.at} in ${reload.duration_ms} ms. ${reload.error ?? ""}` : "";
  byId("diagnostic-list").replaceChildren(...dump.diagnostics.map((each) => {
    const severity = short(each.severity).toLowerCase();
    const { severity: _, message, hint, ...rest } = each;
    return make("li", "", make("b", severity === "error" ? "bad" : "odd", severity), " ", message ?? "",
      hint ? make("span", "summary", hint) : undefined, make("span", "summary faint", short(rest)));
  }));
  if (!dump.diagnostics.length) byId("diagnostic-list").append(make("li", "good", "Nothing is wrong."));
}

// ---- one section at a time

const SHOW = { flows: showFlows, map: showMap, routes: showRoutes, policies: showPolicies, diagnostics: showDiagnostics };
// Milliseconds; configuration is asked for less often, for it is large.
const EVERY = { flows: 1000, map: 2000, routes: 5000, policies: 5000, diagnostics: 5000 };
let timer;

const section = () => {
  const wanted = location.hash.slice(1);
  return SECTIONS.includes(wanted) ? wanted : "flows";
};

async function refresh() {
  clearTimeout(timer);
  const shown = section();
  try {
    await SHOW[shown]?.();
    byId("state").textContent = "";
  } catch (error) {
    byId("state").textContent = error.message;
  }
  clearTimeout(timer);
  if (EVERY[shown]) timer = setTimeout(refresh, EVERY[shown]);
}

function turn() {
  const shown = section();
  for (const name of SECTIONS) byId(name).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  refresh();
}

addEventListener("hashchange", turn);
turn();
