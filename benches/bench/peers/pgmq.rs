//! PGMQ, by its SQL functions.

use sqlx::{Connection as _, PgConnection};

use super::{Client, Work};
use crate::Scale;
use crate::clients::body;
use crate::load::Rate;

pub(super) async fn run(
    url: &str,
    scale: &Scale,
    work: Work,
    enough: usize,
) -> anyhow::Result<Rate> {
    let mut database = PgConnection::connect(url).await?;
    sqlx::raw_sql("SELECT pgmq.create('postrider_bench')")
        .execute(&mut database)
        .await?;
    let rate = super::run::<Pgmq>(url, scale, work, enough).await;
    sqlx::raw_sql("SELECT pgmq.drop_queue('postrider_bench')")
        .execute(&mut database)
        .await?;
    rate
}

struct Pgmq {
    connection: PgConnection,
    body: String,
}

impl Client for Pgmq {
    async fn connect(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            connection: PgConnection::connect(url).await?,
            body: body(),
        })
    }

    async fn publish(&mut self, messages: usize) -> anyhow::Result<()> {
        let query = if messages == 1 {
            sqlx::query("SELECT pgmq.send('postrider_bench', $1::text::jsonb)").bind(&self.body)
        } else {
            sqlx::query("SELECT pgmq.send_batch('postrider_bench', $1::text[]::jsonb[])")
                .bind(vec![&self.body; messages])
        };
        query.fetch_all(&mut self.connection).await?;
        Ok(())
    }

    async fn consume(&mut self, at_once: usize) -> anyhow::Result<u64> {
        let read: Vec<(i64, String)> = sqlx::query_as(
            "SELECT msg_id, message::text FROM pgmq.read('postrider_bench', 600, $1)",
        )
        .bind(i32::try_from(at_once)?)
        .fetch_all(&mut self.connection)
        .await?;
        let ids: Vec<i64> = read.iter().map(|(id, _)| *id).collect();
        sqlx::query("SELECT pgmq.delete('postrider_bench', $1::bigint[])")
            .bind(&ids)
            .fetch_all(&mut self.connection)
            .await?;
        Ok(ids.len() as u64)
    }
}
