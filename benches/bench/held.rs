//! Full speed, and the same while somebody holds a snapshot for a minute.

use crate::gateway::Gateway;
use crate::report::{Line, Target};
use crate::{Bench, lines, machine};

impl Bench {
    pub(super) async fn held_snapshot(&mut self) -> anyhow::Result<()> {
        let what = "publish + receive + ack in batches of 100, last 10 s of 20";
        if !self.wants(what) {
            return Ok(());
        }
        let last = self.scale.held / 6;
        let gateway = Gateway::start().await?;
        lines::new_queue(&gateway).await?;
        let free = lines::batches(&gateway, self.scale.free, last).await?;
        self.add(Line::rate(what, &free));
        let (_, peak) = machine::memory_mib(gateway.pid);
        gateway.stop().await?;
        self.add(
            Line::number(
                "the same: the gateway's memory at its highest",
                peak,
                " MiB",
            )
            .with(Target::at_most("", peak, 300.0)),
        );

        let gateway = Gateway::start().await?;
        lines::new_queue(&gateway).await?;
        let mut analyst = gateway.database().await?;
        // Somebody else's session: the server would end one that rests so long.
        analyst
            .run(
                "SET idle_in_transaction_session_timeout = 0;
                 BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM postrider.queues",
            )
            .await?;
        let held = lines::batches(&gateway, last * 5, last).await?;
        analyst.run("ROLLBACK").await?;
        gateway.stop().await?;
        self.add(
            Line::rate(
                "the same under a held REPEATABLE READ snapshot, last 10 s of 60",
                &held,
            )
            .with(Target::at_least(
                "without",
                held.per_second / free.per_second,
                0.9,
            )),
        );
        Ok(())
    }
}
