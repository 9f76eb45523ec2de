# ndb-conformance --client 'perl conformance.pl'
use strict;
use warnings;
use FindBin;
use IO::Select;
use JSON::PP;
use lib $FindBin::Bin;
use NDB;

my $json = JSON::PP->new->utf8;
my ($ndb, $lines) = (undef, '');
$| = 1;

sub answer {
    my ($id, $error, $result) = @_;
    # A server may write numbers on ndb.v1.text all the same: Perl's integers have 64 bits too.
    $_ .= '' for grep { defined } $result->{tkn}, @{ $result->{exist} // [] };
    print $json->encode({ id => $id, ($error ? %$error : (result => $result)) }), "\n";
}

sub obey {
    my ($line) = @_;
    my ($id, $call) = @$line{qw(id call)};
    if ($call eq 'open') {
        undef $ndb;
        eval { $ndb = NDB->open($line->{url}) };
        answer($id, $@, {});
    }
    elsif ($call eq 'close') {
        $ndb->close if $ndb;
        answer($id, undef, {});
    }
    else {
        $ndb->start($call, $line->{params}, sub { answer($id, @_) }, $line->{timeout});
    }
}

while (1) {
    my $open = $ndb && defined $ndb->socket->fileno;
    # A deadline may be near: look often. A program of one's own would call `request`, which waits.
    my $read = IO::Select->new(\*STDIN, $open ? $ndb->socket : ());
    my $write = $open && $ndb->has_to_write ? IO::Select->new($ndb->socket) : undef;
    my ($readable) = IO::Select->select($read, $write, undef, 0.05);
    if (grep { $_ == \*STDIN } @{ $readable // [] }) {
        sysread STDIN, $lines, 262144, length $lines or last;
        obey($json->decode($1)) while $lines =~ s/^([^\n]*)\n//;
    }
    $ndb->run_once(0) if $open && defined $ndb->socket->fileno;
}
