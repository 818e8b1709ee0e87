//! What a broker says of itself.

use std::io;
use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::protocol::connection::parse_start;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::either::Either;
use webhook_verify::Secret;
use zentra_config::ClientTls;
use zentra_store::queue::QueueError;

use crate::connector::{self, Socket};
use crate::error::failed;
use crate::topology::short;

const REPLY_SUCCESS: u16 = 200;
/// The protocol header of AMQP 0-9-1.
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size of a frame.
const FRAME_HEAD: usize = 7;
/// Class and method of `Connection.Start`.
const START: [u8; 4] = [0, 10, 0, 10];
/// RabbitMQ's has about 500 bytes.
const MAX_START: usize = 64 * 1024;

const NOT_AMQP: &str = "it does not speak AMQP 0-9-1: check the port";
/// A server refuses a certificate within this time.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// What a broker says of itself before anyone signs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Host and port that answered.
    pub address: String,
    /// `RabbitMQ`, if it is that.
    pub product: String,
    /// Its version, like 4.0.5. Empty if it names none.
    pub version: String,
    /// The name of its cluster. A single node has one too.
    pub cluster: String,
    /// Its certificate in DER form, over TLS.
    pub certificate: Option<Vec<u8>>,
}

/// Connects once, signs in to the virtual host, and closes. Declares and publishes nothing.
///
/// # Errors
///
/// [`QueueError::Unusable`] with what to change, if a retry does not help; otherwise why it cannot
/// be reached. [`QueueError::Timeout`] after twice the limit at most.
pub async fn greeting(
    url: &Secret,
    tls: &ClientTls,
    limit: Duration,
) -> Result<Greeting, QueueError> {
    let url = String::from_utf8_lossy(url.expose()).into_owned();
    let unreadable = || QueueError::Unusable("a URL in rabbitmq.urls cannot be parsed".into());
    let uri = connector::uri(&url).ok_or_else(unreadable)?;
    let read = timeout(limit, read(&uri, tls)).await.map_err(|_| QueueError::Timeout(limit))?;
    let greeting = read.map_err(|error| failed(error.into()))?;
    let sign_in = async {
        let properties = ConnectionProperties::default().with_connection_name("zentra".into());
        let connection = connector::connect(uri, tls.clone(), properties).await?;
        connection.close(REPLY_SUCCESS, short("")?).await
    };
    let signed_in = timeout(limit, sign_in).await.map_err(|_| QueueError::Timeout(limit))?;
    signed_in.map_err(failed)?;
    Ok(greeting)
}

/// Reads the broker's first frame, which the client library keeps to itself.
async fn read(uri: &AMQPUri, tls: &ClientTls) -> io::Result<Greeting> {
    let mut stream: Socket = connector::open(uri, tls).await?;
    refused_client(&mut stream).await?;
    stream.write_all(HEADER).await?;
    stream.flush().await?;
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let other = || io::Error::other(NOT_AMQP);
    if head[0] != 1 || length > MAX_START {
        return Err(other());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    let start = frame.strip_prefix(&START).and_then(|start| parse_start(start).ok());
    let (_, start) = start.ok_or_else(other)?;
    let certificate = match &stream {
        Either::Left(_) => None,
        Either::Right(tls) => tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()),
    };
    let said = |name| text(&start.server_properties, name);
    Ok(Greeting {
        address: format!("{}:{}", uri.authority.host, uri.authority.port),
        product: said("product"),
        version: said("version"),
        cluster: said("cluster_name"),
        certificate: certificate.map(|certificate| certificate.to_vec()),
    })
}

/// Waits for a server that refuses the client's certificate. With TLS 1.3 it does so after the
/// client's handshake, and resets the connection if something was sent meanwhile. Then its reason
/// would be lost. A broker never speaks first.
async fn refused_client(stream: &mut Socket) -> io::Result<()> {
    let Either::Right(_) = stream else { return Ok(()) };
    match timeout(REFUSED_WITHIN, stream.read_u8()).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) => Err(io::Error::other(NOT_AMQP)),
        Err(_) => Ok(()),
    }
}

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    }
}
