//! Ten minutes at full speed: the rate and the tables' sizes, minute by minute.

use std::io::Write as _;
use std::time::Duration;

use crate::gateway::Gateway;
use crate::lines;
use crate::machine::memory_mib;

/// Publishes, receives and acks in batches of 100 for so many minutes of so many
/// seconds. Answers with the rate of each.
pub(crate) async fn run(
    gateway: &Gateway,
    minutes: u32,
    second: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut out = std::io::stderr();
    let mut rates = Vec::new();
    writeln!(
        out,
        "| minute | messages/s | ready MiB | parked MiB | tallies MiB | partitions | all MiB | gateway MiB |"
    )?;
    writeln!(
        out,
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )?;
    lines::new_queue(gateway).await?;
    let mut database = gateway.database().await?;
    for minute in 1..=minutes {
        let rate = lines::batches(gateway, Duration::ZERO, second * 60).await?;
        let sizes = database
            .text(
                "SELECT format('%s | %s | %s | %s | %s',
                    pg_total_relation_size('postrider.ready') / 1048576,
                    pg_total_relation_size('postrider.parked') / 1048576,
                    pg_total_relation_size('postrider.tallies') / 1048576,
                    (SELECT count(*) FROM postrider.message_partitions),
                    pg_database_size(current_database()) / 1048576)",
            )
            .await?;
        let (memory, _) = memory_mib(gateway.pid);
        writeln!(
            out,
            "| {minute} | {:.0} | {sizes} | {memory:.0} |",
            rate.per_second
        )?;
        rates.push(rate.per_second);
    }
    let backlog = database
        .number("SELECT count(*)::float8 FROM postrider.ready")
        .await?;
    writeln!(
        out,
        "ready at the end: {backlog:.0}, {} messages in all",
        rates.iter().sum::<f64>() * second.as_secs_f64() * 60.0
    )?;
    Ok(rates)
}
