; L01: keys with a top element are a total order, and min over them is a commutative idempotent monoid.
; A key is (J, rank of name and version); top stands for "no service". Hence a decision does not depend on the order,
; repetition or partition of the services.
; code: policies.key, routing.decide_by_definition
(set-logic ALL)
(declare-datatypes ((Key 0)) (((top) (key (j Int) (r Int)))))
(define-fun lt ((a Key) (b Key)) Bool
  (and (not (= a top)) (or (= b top) (< (j a) (j b)) (and (= (j a) (j b)) (< (r a) (r b))))))
(define-fun le ((a Key) (b Key)) Bool (or (= a b) (lt a b)))
(define-fun least ((a Key) (b Key)) Key (ite (le a b) a b))
(declare-const a Key)
(declare-const b Key)
(declare-const c Key)
(push 1) ; expect unsat: total, antisymmetric, transitive
(assert (not (and (or (le a b) (le b a)) (=> (and (le a b) (le b a)) (= a b)) (=> (and (le a b) (le b c)) (le a c)))))
(check-sat)
(pop 1)
(push 1) ; expect unsat: associative, commutative, idempotent, identity top
(assert (not (and (= (least a (least b c)) (least (least a b) c)) (= (least a b) (least b a)) (= (least a a) a)
                  (= (least a top) a))))
(check-sat)
(pop 1)
(push 1) ; expect sat: without the rank, ties go to whoever comes first
(define-fun le_j ((x Key) (y Key)) Bool (or (= y top) (and (not (= x top)) (<= (j x) (j y)))))
(assert (not (= (ite (le_j a b) a b) (ite (le_j b a) b a))))
(check-sat)
(pop 1)
