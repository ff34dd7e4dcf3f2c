"""vnc.py SOCKET PASSWORD: exit status 0 if the screen lets this password in (RFC 6143, 7.2.2)."""
import socket
import subprocess
import sys


def take(s, n):
    got = b''
    while len(got) < n:
        more = s.recv(n - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def answer(challenge, password):
    key = password.encode()[:8].ljust(8, b'\0')
    key = bytes(int(f'{b:08b}'[::-1], 2) for b in key)  # VNC turns the bits of each byte round
    return subprocess.run(['openssl', 'enc', '-des-ecb', '-provider', 'legacy', '-provider', 'default',
                           '-nopad', '-K', key.hex()], input=challenge, capture_output=True,
                          check=True).stdout


s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
assert take(s, 12) == b'RFB 003.008\n'
s.sendall(b'RFB 003.008\n')
kinds = take(s, take(s, 1)[0])
assert kinds == b'\x02', f'it offers {kinds}, not the password alone'
s.sendall(b'\x02')
s.sendall(answer(take(s, 16), sys.argv[2]))
sys.exit(take(s, 4) != b'\0\0\0\0')
