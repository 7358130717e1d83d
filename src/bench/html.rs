//! The results as one page that needs nothing from elsewhere: figures, plots, and how to do it
//! again.

use super::plot::{Curve, Plot};
use super::results::{Results, SeriesFigures};
use super::table::{counted, facts, rows};
use crate::humanize::duration;

pub(super) fn render(results: &Results) -> String {
    let run = &results.run;
    let title = format!("heartline bench {}", results.scenario);
    let own = if run.own_server {
        ", a heartline started for this"
    } else {
        ""
    };
    let early = if results.interrupted {
        ", ended early"
    } else {
        ""
    };
    let notes: String = results
        .notes
        .iter()
        .map(|note| format!("<p class=\"note\">{}</p>\n", escape(note)))
        .collect();
    let plots: String = plots(results).iter().filter_map(card).collect();
    let command = run
        .command
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    let machine = &run.machine;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\">\n<title>{title}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"sub\">{addr}{own} · {started} · \
         {measured:.1} s measured{early}</p>\n{notes}<div class=\"cards\">\n{figures}{percentiles}{plots}</div>\n<footer>\n<p><code>{command}</code></p>\n\
         <p>heartline {version}, {kernel}, {cpu}, {cores} cores, {memory:.0} GiB, {workers}, seed {seed}</p>\n</footer>\n</body>\n</html>\n",
        css = include_str!("page.css"),
        addr = run.addr,
        started = escape(&run.started),
        measured = results.measured_s,
        figures = figures(results),
        percentiles = percentiles(results),
        command = escape(&command),
        version = run.heartline,
        kernel = escape(&machine.kernel),
        cpu = escape(&machine.cpu),
        cores = machine.cores,
        memory = machine.memory_bytes as f64 / f64::from(1 << 30),
        workers = counted(u64::from(run.workers), "worker process", "worker processes"),
        seed = run.seed,
    )
}

fn figures(results: &Results) -> String {
    let row = |(name, value): (String, String)| {
        format!(
            "<tr><td>{}</td><td>{}</td></tr>\n",
            escape(&name),
            escape(&value)
        )
    };
    let rows: String = facts(results).into_iter().map(row).collect();
    format!(
        "<section class=\"card\"><h2>Figures</h2><table class=\"facts\">\n{rows}</table></section>\n"
    )
}

fn percentiles(results: &Results) -> String {
    let rows: String = rows(results)
        .into_iter()
        .map(|(name, summary)| {
            let figures = [
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p99_9,
                summary.max,
            ];
            let cells: String = figures
                .iter()
                .map(|us| format!("<td>{}</td>", duration(*us)))
                .collect();
            format!(
                "<tr><td>{}</td>{cells}<td>{}</td></tr>\n",
                escape(&name),
                summary.count
            )
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section class=\"card\"><h2>Percentiles</h2><table>\n<tr><th></th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
         <th>count</th></tr>\n{rows}</table></section>\n"
    )
}

fn card(plot: &Plot) -> Option<String> {
    let svg = plot.render()?;
    let legend = if plot.curves.len() > 1 {
        let entry = |curve: &Curve| format!("<span><i></i>{}</span>", escape(&curve.name));
        format!(
            "<div class=\"legend\">{}</div>",
            plot.curves.iter().map(entry).collect::<String>()
        )
    } else {
        String::new()
    };
    Some(format!(
        "<section class=\"card\"><h2>{}</h2>{legend}{svg}</section>\n",
        plot.title
    ))
}

fn plots(results: &Results) -> Vec<Plot> {
    let mut plots = vec![latency(results)];
    plots.extend(
        results
            .dead
            .as_ref()
            .map(|dead| evictions(&dead.closed_after, dead.bound_s)),
    );
    plots.extend(results.push.as_ref().map(|_| arrivals(results)));
    plots.push(connections(&results.series));
    plots.extend(results.memory.as_ref().map(|memory| {
        let points = memory
            .points
            .iter()
            .map(|point| (f64::from(point.connections), point.rss_bytes as f64 / MIB))
            .collect();
        let curves = vec![Curve {
            name: "resident".to_string(),
            points,
            area: true,
        }];
        plot(
            "Memory of the server at rest",
            "connections",
            "",
            (count, mib),
            curves,
        )
    }));
    plots.push(memory_over_time(&results.series));
    plots.push(cpu(&results.series));
    plots
}

fn plot(
    title: &'static str,
    x_label: &'static str,
    y_label: &'static str,
    formats: (Format, Format),
    curves: Vec<Curve>,
) -> Plot {
    let (x_format, y_format) = formats;
    // A plot without data, as of a server whose process is unknown, is left out.
    let curves = curves
        .into_iter()
        .filter(|curve| !curve.points.is_empty())
        .collect();
    Plot {
        title,
        x_label,
        y_label,
        x_format,
        y_format,
        log_y: false,
        marks: Vec::new(),
        curves,
    }
}

type Format = fn(f64) -> String;

/// By how rare they are: each nine takes as much room as the one before.
fn latency(results: &Results) -> Plot {
    let points = |points: &[(f64, f64)]| {
        // The maximum would be at 100 %, which the axis does not reach: it is placed at one in the
        // number of values.
        points
            .iter()
            .map(|(percent, us)| (-(1.0 - percent / 100.0).log10(), *us))
            .filter(|(nines, _)| nines.is_finite())
            .collect()
    };
    let groups = results
        .groups
        .iter()
        .filter(|group| group.latency_us.is_some());
    let curves = groups
        .map(|group| Curve {
            name: group.name.clone(),
            points: points(&group.latency_percentiles_us),
            area: false,
        })
        .collect();
    let title = match results.storm {
        Some(_) => "Latency by percentile, the client's own writing included",
        None => "Latency by percentile",
    };
    Plot {
        log_y: true,
        ..plot(title, "percentile", "", (percentile, duration), curves)
    }
}

fn evictions(closed_after: &[(f64, u64)], bound_s: Option<f64>) -> Plot {
    let mut closed = 0;
    let steps = closed_after.iter().flat_map(|(s, count)| {
        let before = std::mem::replace(&mut closed, *count);
        [(*s, before as f64), (*s, *count as f64)]
    });
    let curves = vec![Curve {
        name: "closed".to_string(),
        points: steps.collect(),
        area: true,
    }];
    let marks = bound_s
        .map(|bound_s| (bound_s, "bound"))
        .into_iter()
        .collect();
    Plot {
        marks,
        ..plot(
            "Evictions",
            "silence since the last byte",
            "connections closed",
            (fine_seconds, count),
            curves,
        )
    }
}

fn arrivals(results: &Results) -> Plot {
    let messages = || {
        results
            .push
            .iter()
            .flat_map(|push| &push.messages)
            .enumerate()
            .filter(|(_, message)| message.received > 0)
    };
    let curves = vec![
        Curve {
            name: "first arrival".to_string(),
            points: messages()
                .map(|(n, message)| (n as f64 + 1.0, message.first_us))
                .collect(),
            area: false,
        },
        Curve {
            name: "last arrival".to_string(),
            points: messages()
                .map(|(n, message)| (n as f64 + 1.0, message.last_us))
                .collect(),
            area: false,
        },
    ];
    plot(
        "First and last arrival of each message",
        "message",
        "",
        (count, duration),
        curves,
    )
}

fn connections(series: &SeriesFigures) -> Plot {
    let mut curves = vec![Curve {
        name: "open".to_string(),
        points: over_time(series, &series.open, |n| Some(f64::from(*n))),
        area: true,
    }];
    for (name, values) in [("ended", &series.ended), ("failed", &series.failed)] {
        if values.iter().any(|n| *n > 0) {
            curves.push(Curve {
                name: name.to_string(),
                points: over_time(series, values, |n| Some(f64::from(*n))),
                area: false,
            });
        }
    }
    let marks = began(series);
    Plot {
        marks,
        ..plot(
            "Connections over time",
            "time",
            "",
            (seconds, count),
            curves,
        )
    }
}

fn memory_over_time(series: &SeriesFigures) -> Plot {
    let points = over_time(series, &series.server_rss_bytes, |rss| {
        rss.map(|bytes| bytes as f64 / MIB)
    });
    let curves = vec![Curve {
        name: "resident".to_string(),
        points,
        area: true,
    }];
    Plot {
        marks: began(series),
        ..plot(
            "Resident memory of the server over time",
            "time",
            "",
            (seconds, mib),
            curves,
        )
    }
}

fn cpu(series: &SeriesFigures) -> Plot {
    let percent = |cores: &Option<f64>| cores.map(|cores| cores * 100.0);
    let curves = vec![
        Curve {
            name: "server".to_string(),
            points: over_time(series, &series.server_cpu_cores, percent),
            area: false,
        },
        Curve {
            name: "client, all workers".to_string(),
            points: over_time(series, &series.workers_cpu_cores, percent),
            area: false,
        },
    ];
    let curves = if curves[0].points.is_empty() {
        curves.into_iter().skip(1).collect()
    } else {
        curves
    };
    Plot {
        marks: began(series),
        ..plot(
            "CPU over time",
            "time",
            "",
            (seconds, |y| format!("{y:.0} %")),
            curves,
        )
    }
}

fn began(series: &SeriesFigures) -> Vec<(f64, &'static str)> {
    series.began_s.map(|at| (at, "begin")).into_iter().collect()
}

fn over_time<T>(
    series: &SeriesFigures,
    values: &[T],
    value: impl Fn(&T) -> Option<f64>,
) -> Vec<(f64, f64)> {
    series
        .at_s
        .iter()
        .zip(values)
        .filter_map(|(at_s, of)| Some((*at_s, value(of)?)))
        .collect()
}

fn seconds(s: f64) -> String {
    format!("{} s", (s * 100.0).round() / 100.0)
}

fn fine_seconds(s: f64) -> String {
    format!("{s:.3} s")
}

fn count(n: f64) -> String {
    format!("{n:.0}")
}

const MIB: f64 = 1_048_576.0;

fn mib(mib: f64) -> String {
    format!("{mib:.1} MiB")
}

fn percentile(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    format!("{percent:.*} %", (nines.ceil() as usize).saturating_sub(2))
}

/// As a shell would take it.
fn quote(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=,@+%".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped() {
        assert_eq!(escape("<b> & \"c\""), "&lt;b&gt; &amp; &quot;c&quot;");
        assert_eq!(quote("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(quote("PING\\r\\n it's"), "'PING\\r\\n it'\\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn percentiles_have_as_many_nines_as_they_need() {
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }
}
