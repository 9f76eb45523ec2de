# A client of NDB for Perl 5.20 and newer. It needs only modules that come with Perl.
#
#     my $ndb = NDB->open('ws://127.0.0.1:1987/');
#     my $tkn = $ndb->request('SH_NEW', {})->{tkn};
#     $ndb->request('SH_SET', { tkn => $tkn, keys => { name => 'Ada' } });
#
# A failure dies with { error => 'refused', 'lost', 'timeout' or 'unreadable', message => …,
# status => … (only for 'refused') }. Tokens are strings of digits. Treat them as secrets.
package NDB;

use strict;
use warnings;
use Digest::SHA qw(sha1_base64);
use Encode qw(decode FB_CROAK);
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use Time::HiRes qw(time);

use constant { CONTINUATION => 0, TEXT => 1, BINARY => 2, CLOSE => 8, PING => 9, PONG => 10 };

my %SUCCESS = map { $_ => 1 } 1, 121, 141;
my $JSON = JSON::PP->new->utf8->allow_nonref;

sub random_bytes {
    my ($count) = @_;
    CORE::open(my $source, '<:raw', '/dev/urandom') or die "/dev/urandom: $!\n";
    read($source, my $bytes, $count) == $count or die "/dev/urandom ended\n";
    return $bytes;
}

# Connect to a server; `timeout` is the most that this and each request may take, in seconds.
sub open {
    my ($class, $url, %options) = @_;
    my $timeout = $options{timeout} // 10;
    my ($host, $port, $path) = $url =~ m{^ws://([^/:]+):(\d+)(/.*)?$}
        or die { error => 'lost', message => 'use ws://HOST:PORT/' };
    my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => $timeout)
        or die { error => 'lost', message => "no connection: $@" };
    my $self = bless {
        socket => $socket, timeout => $timeout, in => '', out => '', waiting => [], fragments => undef,
    }, $class;
    my $key = encode_base64(random_bytes(16), '');
    $self->{out} = join "\r\n", 'GET ' . ($path // '/') . ' HTTP/1.1', "Host: $host:$port",
        'Upgrade: websocket', 'Connection: Upgrade', "Sec-WebSocket-Key: $key",
        'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Protocol: ndb.v1.text', '', '';
    my $deadline = time + $timeout;
    $socket->blocking(0);
    my $head;
    until (($head) = $self->{in} =~ /^(.*?\r\n)\r\n/s) {
        $self->_move($deadline - time) or $self->_end('no answer to the handshake');
        die { error => 'lost', message => $self->{ended} } if defined $self->{ended};
    }
    substr $self->{in}, 0, 2 + length $head, '';
    my ($status, @lines) = split /\r\n/, $head;
    my %headers = map { /^([^:]+):\s*(.*?)\s*$/ ? (lc $1 => $2) : () } @lines;
    # RFC 6455, section 4.2.2.
    my $accept = sha1_base64($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11') . '=';
    if ($status !~ m{^HTTP/1\.1 101 } || ($headers{'sec-websocket-accept'} // '') ne $accept) {
        $self->_end("the handshake was answered with $status");
    }
    elsif (($headers{'sec-websocket-protocol'} // '') ne 'ndb.v1.text') {
        $self->_end('the server does not know ndb.v1.text');
    }
    die { error => 'lost', message => $self->{ended} } if defined $self->{ended};
    $self->_take;
    return $self;
}

# Run a command and return the body of its reply, as a hash.
sub request {
    my ($self, $command, $params, $timeout) = @_;
    my ($error, $body);
    my $done = 0;
    $self->start($command, $params, sub { ($error, $body) = @_; $done = 1 }, $timeout);
    $self->run_once until $done;
    die $error if $error;
    return $body;
}

# Send a request and don't wait: `run_once` calls `$then->($error, $body)`, one of them undef.
sub start {
    my ($self, $command, $params, $then, $timeout) = @_;
    if (defined $self->{ended}) {
        $then->({ error => 'lost', message => $self->{ended} });
        return;
    }
    push @{ $self->{waiting} },
        { command => $command, then => $then, deadline => time + ($timeout // $self->{timeout}) };
    $self->_send(TEXT, $JSON->encode({ $command => $params }));
}

# Wait until something happens, at most until the next deadline, and do what follows from it.
# A program with other things to wait for gives the most it may wait, in seconds.
sub run_once {
    my ($self, $at_most) = @_;
    my @ends = map { $_->{deadline} - time } grep { $_->{then} } @{ $self->{waiting} };
    my ($wait) = sort { $a <=> $b } grep { defined } @ends, $at_most;
    $self->_move(defined $wait && $wait < 0 ? 0 : $wait);
    $self->_take;
    $self->expire;
}

# Give up what takes too long. It stays in line: its reply must not be taken for another's.
sub expire {
    my ($self) = @_;
    for my $waiting (grep { $_->{then} && $_->{deadline} <= time } @{ $self->{waiting} }) {
        my $then = delete $waiting->{then};
        $then->({ error => 'timeout', message => "$waiting->{command}: no reply in time" });
    }
}

sub close {
    my ($self) = @_;
    return if defined $self->{ended};
    $self->_send(CLOSE, pack 'n', 1000);
    my $deadline = time + 5;
    while (!defined $self->{ended} && $self->_move($deadline - time)) {
        $self->_take;
    }
    $self->_end('closed');
}

sub socket { $_[0]{socket} }

sub has_to_write { length $_[0]{out} }

# The connection.

# Read and write what can be read and written; return false if nothing could within the time.
sub _move {
    my ($self, $seconds) = @_;
    return 0 if defined $seconds && $seconds < 0;
    my $socket = $self->{socket};
    my $both = IO::Select->new($socket);
    my $write = length $self->{out} ? $both : undef;
    my ($readable, $writable) = IO::Select->select($both, $write, undef, $seconds) or return 0;
    if (@$writable) {
        my $count = syswrite $socket, $self->{out}, 65536;
        substr($self->{out}, 0, $count, '') if defined $count;
    }
    if (@$readable) {
        my $count = sysread $socket, $self->{in}, 262144, length $self->{in};
        # Frames that came before the end are still in the buffer.
        $self->{at_end} = 1 if defined $count ? $count == 0 : !$!{EAGAIN};
        $self->_end('the connection ended') if $self->{at_end} && !length $self->{in};
    }
    return 1;
}

sub _send {
    my ($self, $opcode, $payload) = @_;
    my $length = length $payload;
    my $mask = random_bytes(4);
    my $keys = substr $mask x ($length / 4 + 1), 0, $length;
    $self->{out} .= pack('C', 0x80 | $opcode)
        . ( $length < 126 ? pack('C', 0x80 | $length)
          : $length < 65536 ? pack('Cn', 0xFE, $length)
          : pack('CQ>', 0xFF, $length))
        . $mask . ($payload ^ $keys);
}

# Do what the frames say that are here in full.
sub _take {
    my ($self) = @_;
    while (!defined $self->{ended} && length $self->{in} >= 2) {
        my ($first, $length) = unpack 'CC', $self->{in};
        my ($fin, $opcode) = ($first & 0x80, $first & 0x0F);
        return $self->_fail('reserved bits') if $first & 0x70;
        return $self->_fail('a masked frame') if $length & 0x80;
        my $header = $length == 126 ? 4 : $length == 127 ? 10 : 2;
        last if length $self->{in} < $header;
        $length = unpack 'x2n', $self->{in} if $length == 126;
        $length = unpack 'x2Q>', $self->{in} if $length == 127;
        # RFC 6455, section 5.2: in its shortest form, and its most significant bit is 0.
        return $self->_fail('a length that is not in its shortest form')
            if $header == 4 && $length < 126 || $header == 10 && $length < 65536;
        return $self->_fail('a length that is too large') if $length >> 63;
        return $self->_fail('a control frame that is too long or in fragments')
            if $opcode >= CLOSE && (!$fin || $length > 125);
        last if length $self->{in} < $header + $length;
        substr $self->{in}, 0, $header, '';
        my $payload = substr $self->{in}, 0, $length, '';
        if ($opcode == PING) { $self->_send(PONG, $payload) }
        elsif ($opcode == PONG) { }
        elsif ($opcode == CLOSE) {
            my $code = $length >= 2 ? unpack 'n', $payload : 1005;
            $self->_send(CLOSE, substr $payload, 0, 2);
            $self->_move(1) while length $self->{out} && !defined $self->{ended};
            $self->_end("the server closed the connection with $code");
        }
        elsif ($opcode == TEXT || $opcode == CONTINUATION) {
            return $self->_fail('fragments out of order')
                if ($opcode == TEXT) == defined $self->{fragments};
            $self->{fragments} .= $payload;
            if ($fin) {
                my $message = $self->{fragments};
                $self->{fragments} = undef;
                $self->_answer($message);
            }
        }
        else { return $self->_fail($opcode == BINARY ? 'a binary message' : 'an unknown frame') }
    }
    $self->_end('the connection ended') if $self->{at_end};
}

sub _answer {
    my ($self, $message) = @_;
    return $self->_fail('a reply that is not UTF-8')
        unless eval { decode('UTF-8', my $copy = $message, FB_CROAK); 1 };
    # Replies come in the order of the requests.
    my $waiting = shift @{ $self->{waiting} } or return $self->_fail('a reply to no request');
    my $then = $waiting->{then} // sub { };
    my $command = $waiting->{command};
    my $reply = eval { $JSON->decode($message) };
    my ($name) = ref $reply eq 'HASH' && keys %$reply == 1 ? keys %$reply : ();
    my $body = defined $name ? $reply->{$name} : undef;
    if (ref $body ne 'HASH' || ($body->{st} // '') !~ /^\d+$/) {
        $then->({ error => 'unreadable', message => "$command: the reply has no status" });
    }
    elsif (!$SUCCESS{ $body->{st} }) {
        my $why = $body->{m} // 'refused';
        $then->({ error => 'refused', status => $body->{st}, message => "$command: $why" });
    }
    elsif ($name ne "${command}_RSP") {
        $then->({ error => 'unreadable', message => "$command was answered by $name" });
        $self->_fail('a reply to another request');
    }
    else {
        delete $body->{st};
        $then->(undef, $body);
    }
}

# Close because of what the server sent (RFC 6455, section 7.1.7).
sub _fail {
    my ($self, $why) = @_;
    $self->_send(CLOSE, pack 'n', 1002);
    $self->_move(1);
    $self->_end("the server sent $why");
}

sub _end {
    my ($self, $why) = @_;
    $self->{ended} //= $why;
    $self->{socket}->close;
    for my $waiting (splice @{ $self->{waiting} }) {
        next unless $waiting->{then};
        $waiting->{then}->({ error => 'lost', message => "$waiting->{command}: $self->{ended}" });
    }
}

1;
