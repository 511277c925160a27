//! `emberbox account`: the accounts of a data directory, for the operator alone, who may read it.

use std::path::Path;

use anyhow::{Context, bail};
use emberbox_control::accounts::AddAccountError;
use emberbox_control::{Clock, SystemClock, accounts};
use emberbox_store::Store;
use emberbox_wire::ids::AccountId;

use crate::arguments::Account;
use crate::environment::Endpoint;
use crate::serve::DATABASE;

pub(crate) fn run(arguments: Account) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments {
            Account::Add { data, account } => add(&data.data, &account).await,
            Account::List { data } => list(&data.data).await,
        }
    })
}

async fn add(data: &Path, account: &str) -> anyhow::Result<()> {
    let store = open(data).await?;
    let key = match accounts::add(&store, &AccountId(account.to_owned()), SystemClock.now()).await {
        Ok(key) => key,
        Err(AddAccountError::NotAnAccount) => bail!("{account:?} is not an account: it must be twelve digits"),
        Err(AddAccountError::Exists) => bail!("account {account} exists already"),
        Err(error @ AddAccountError::Store(_)) => return Err(error).context("could not add the account"),
    };
    eprintln!("Account {account} added. The access key of its root, shown this once:");
    println!("export AWS_ACCESS_KEY_ID={}", key.id);
    println!("export AWS_SECRET_ACCESS_KEY={}", key.secret);
    Ok(())
}

async fn list(data: &Path) -> anyhow::Result<()> {
    for account in open(data).await?.accounts().await.context("could not read the accounts")? {
        println!("{}", account.id);
    }
    Ok(())
}

async fn open(data: &Path) -> anyhow::Result<Store> {
    // Says what to do where no daemon has ever served.
    Endpoint::read(data)?;
    Store::open(&data.join(DATABASE)).await.context("could not open the daemon's records (are you root?)")
}
